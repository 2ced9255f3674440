-- Applications, the programs that use the doors: what must hold for one on every instance and after
-- a restart. Who they are and what they may do stands in the configuration.

-- +goose NO TRANSACTION
-- +goose Up

-- application has a row for each that was revoked or has a limit. epoch counts its revocations:
-- tokens from before the last one are refused. allocations counts what was handed out of its limits;
-- whoever hands out writes it first, so that two do not hand out the same.
CREATE TABLE IF NOT EXISTS application (
    name        VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    epoch       BIGINT       NOT NULL DEFAULT 0,
    allocations BIGINT       NOT NULL DEFAULT 0,
    revoked_at  TIMESTAMP(3) NULL DEFAULT NULL,
    PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- application_usage counts accepted requests. Each instance, the holder, writes a row of its own in
-- the transaction that inserts the requests, so that instances do not wait for each other: used grows
-- up to allocated, and the sum of allocated never exceeds the application's limit. period is day or
-- minute, begins_at its first moment.
CREATE TABLE IF NOT EXISTS application_usage (
    application VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    period      VARCHAR(8)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    begins_at   TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    holder      VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    allocated   BIGINT       NOT NULL DEFAULT 0,
    used        BIGINT       NOT NULL DEFAULT 0,
    touched_at  TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (application, period, begins_at, holder)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- +goose Down
DROP TABLE IF EXISTS application_usage;
DROP TABLE IF EXISTS application;
