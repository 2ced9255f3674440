-- Whose data is being erased: the daemon walks through all requests for it, which takes minutes.

-- +goose NO TRANSACTION
-- +goose Up

-- erasure has the ids of people who are being erased, until nothing has them any more: then its rows
-- go, too, and erased_person keeps a hash. appid '' marks a unionid. walked: all requests have been
-- looked at, and what was on its way meanwhile is left to be erased.
CREATE TABLE IF NOT EXISTS erasure (
    appid     VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    value     VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    walked    TINYINT      NOT NULL DEFAULT 0,
    begun_at  TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (appid, value)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- +goose Down
DROP TABLE IF EXISTS erasure;
