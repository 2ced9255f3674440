-- door_echo has a row for each message whose application wants to be told what became of it. It is
-- written with the message, and deleted when the application has taken the news, or a day after there
-- was some. due_at is when it is looked at next; news_at when there was news first; tries counts POSTs.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS door_echo (
    request_id  BIGINT UNSIGNED NOT NULL,
    application VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    due_at      TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    created_at  TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    news_at     TIMESTAMP(3) NULL DEFAULT NULL,
    tries       INT          NOT NULL DEFAULT 0,
    PRIMARY KEY (request_id),
    KEY door_echo_due (due_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- +goose Down
DROP TABLE IF EXISTS door_echo;
