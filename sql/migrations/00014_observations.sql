-- What the instances have last seen of the accounts at WeChat, for status, metrics and alarms: each
-- shows the same, whichever instance asked, and after a restart too.

-- +goose NO TRANSACTION
-- +goose Up

-- account_quota has WeChat's latest answer about each endpoint whose quota is asked for.
CREATE TABLE IF NOT EXISTS account_quota (
    appid       VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    endpoint    VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    daily_limit BIGINT       NOT NULL DEFAULT 0,
    remaining   BIGINT       NOT NULL DEFAULT 0,
    asked_at    TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (appid, endpoint)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- account_problem has what the checks of an account found that a person must fix. subject is the
-- alias, or empty. An instance that finds a problem writes seen_at again every five minutes, so that
-- those of an instance that is gone become old.
CREATE TABLE IF NOT EXISTS account_problem (
    appid   VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    reason  VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    subject VARCHAR(128)  CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
    text    VARCHAR(1024) NOT NULL,
    cure    VARCHAR(1024) NOT NULL,
    since   TIMESTAMP(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    seen_at TIMESTAMP(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (appid, reason, subject)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- +goose Down
DROP TABLE IF EXISTS account_problem;
DROP TABLE IF EXISTS account_quota;
