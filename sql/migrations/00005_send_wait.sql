-- What releases a waiting request, and two indexes by which it is noticed. The indexes are built
-- while the tables are in use; an index that exists is left alone, since CREATE INDEX knows no
-- IF NOT EXISTS on MySQL.

-- +goose NO TRANSACTION
-- +goose Up

-- send_wait has one row for each thing that may release a waiting request: the recipient's unionid
-- at the account, their openid at the account or at a mini program. It is written in the
-- transaction that makes the request wait, and deleted in the one that ends that. It is a hint: the
-- state is send_request's. Requests that wait already get theirs from the daemon.
CREATE TABLE IF NOT EXISTS send_wait (
    request_id BIGINT UNSIGNED NOT NULL,
    kind       VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    appid      VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    value      VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    PRIMARY KEY (request_id, kind, appid, value),
    KEY send_wait_key (kind, appid, value, request_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- mini_user_seen: apps store logins by SQL and tell nobody.
SET @statement = (
    SELECT IF(COUNT(*) > 0, 'DO 0', 'CREATE INDEX mini_user_seen ON mini_user (seen_at, appid, openid)')
      FROM information_schema.statistics
     WHERE table_schema = DATABASE() AND table_name = 'mini_user' AND index_name = 'mini_user_seen');
PREPARE migration FROM @statement;
EXECUTE migration;
DEALLOCATE PREPARE migration;

-- send_request_cancel finds withdrawn rows among those that wait. status is not in it, for each
-- message would pay for that: final rows that were withdrawn stand there too.
SET @statement = (
    SELECT IF(COUNT(*) > 0, 'DO 0', 'CREATE INDEX send_request_cancel ON send_request (cancel)')
      FROM information_schema.statistics
     WHERE table_schema = DATABASE() AND table_name = 'send_request' AND index_name = 'send_request_cancel');
PREPARE migration FROM @statement;
EXECUTE migration;
DEALLOCATE PREPARE migration;

-- +goose Down
ALTER TABLE send_request DROP INDEX send_request_cancel;
ALTER TABLE mini_user DROP INDEX mini_user_seen;
DROP TABLE IF EXISTS send_wait;
