-- accepted_at is when the newest acceptance happened that the ledger of a grant has, used up or not. A
-- message that was sent after it takes one from remaining, without the ledger being read. NULL: there
-- is none, or nothing was computed since this migration: then the ledger is read once. A program from
-- before the migration leaves it as it was, so that it may be too old while one runs beside this one: a
-- message that was sent before an acceptance, and is written down after it, may then cost that one.
--
-- An appended column without a value costs no copy of the table (INSTANT). The statement can be run
-- again, hence the prepared one: no server but MariaDB knows ADD COLUMN IF NOT EXISTS.

-- +goose NO TRANSACTION
-- +goose Up
SET @ddl = (SELECT CASE COUNT(*) WHEN 0
                   THEN 'ALTER TABLE subscription_grant
                             ADD COLUMN accepted_at TIMESTAMP(3) NULL DEFAULT NULL'
                   ELSE 'SELECT 1' END
              FROM information_schema.columns
             WHERE table_schema = DATABASE() AND table_name = 'subscription_grant'
               AND column_name = 'accepted_at');
PREPARE add_column FROM @ddl;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;

-- +goose Down
ALTER TABLE subscription_grant DROP COLUMN accepted_at;
