-- What a request that was moved between the channels of its route has to remember.
--
-- wait_until is when its waiting ends that began first, however often it was released since.
-- first_refused_at and other_refused_at are when the first account of its route, and the other one,
-- were last refused by the person: an account opens again by what came after that. NULL: never.
--
-- Appended columns without a value cost no copy of the table (INSTANT). The statement can be run
-- again, hence the prepared one: no server but MariaDB knows ADD COLUMN IF NOT EXISTS. The archive
-- does not have these columns: they say nothing of a request that is over.

-- +goose NO TRANSACTION
-- +goose Up
SET @ddl = (SELECT CASE COUNT(*) WHEN 0
                   THEN 'ALTER TABLE send_request
                             ADD COLUMN wait_until       TIMESTAMP(3) NULL DEFAULT NULL,
                             ADD COLUMN first_refused_at TIMESTAMP(3) NULL DEFAULT NULL,
                             ADD COLUMN other_refused_at TIMESTAMP(3) NULL DEFAULT NULL'
                   ELSE 'SELECT 1' END
              FROM information_schema.columns
             WHERE table_schema = DATABASE() AND table_name = 'send_request'
               AND column_name = 'other_refused_at');
PREPARE add_column FROM @ddl;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;

-- +goose Down
ALTER TABLE send_request
    DROP COLUMN other_refused_at, DROP COLUMN first_refused_at, DROP COLUMN wait_until;
