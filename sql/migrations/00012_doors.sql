-- door_duplicate remembers, for as long as duplicate_window of an application says, which messages it
-- has sent without a key of its own. content is a keyed hash of application, account, recipient and
-- message: nobody can be named by it. request_id 0: its transaction is under way.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS door_duplicate (
    content     VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    request_id  BIGINT UNSIGNED NOT NULL DEFAULT 0,
    accepted_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (content),
    KEY door_duplicate_age (accepted_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- +goose Down
DROP TABLE IF EXISTS door_duplicate;
