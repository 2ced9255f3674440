-- Templates are compared byte by byte, as the program compares them, whatever the server's default
-- is: `order_paid` and `ORDER_PAID` were one place of send_request_due on some servers. Only
-- trailing spaces do not count, here as there.
--
-- MySQL and TiDB refuse to change the collation of a column that is in an index while others write
-- (1846, 8200), and MySQL would copy the table instead and let nobody insert meanwhile: 4 minutes
-- for ten million rows. So send_request_due is first replaced by an index without the column, for
-- the programs that name it, and at the end by the one of before. One ALTER drops the old one and
-- gives its name to the new one: between two of them a name could be missing for as long as an open
-- transaction holds the second up, and the claims of all daemons fail. Only TiDB does not know that.
-- Each step lets others read and write, or fails where the server cannot. docs/scale.md has the
-- times. Each step looks whether it is still needed: after a crash the next run goes on, and a
-- column that has the collation already costs nothing.

-- +goose NO TRANSACTION
-- +goose Up

-- A table without rows, a new installation's, is changed at once.
SET @todo = (SELECT COUNT(*) FROM information_schema.columns
              WHERE table_schema = DATABASE() AND table_name = 'send_request'
                AND column_name = 'template' AND collation_name <> 'utf8mb4_bin');
SET @tidb = VERSION() LIKE '%TiDB%';
SET @drop_due = 'ALTER TABLE send_request
    DROP INDEX send_request_due, ALGORITHM = INPLACE, LOCK = NONE';
SET @rename_next = 'ALTER TABLE send_request
    RENAME INDEX send_request_due_next TO send_request_due, ALGORITHM = INPLACE, LOCK = NONE';
SET @swap = IF(@tidb, @drop_due, 'ALTER TABLE send_request
    DROP INDEX send_request_due, RENAME INDEX send_request_due_next TO send_request_due,
    ALGORITHM = INPLACE, LOCK = NONE');
SET @empty = (NOT @tidb AND NOT EXISTS (SELECT 1 FROM send_request));
SET @step = IF(@todo AND @empty, 'ALTER TABLE send_request
    MODIFY template VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL', 'DO 0');
PREPARE step FROM @step;
EXECUTE step;

-- 1. The index without the column, beside the one of before.
SET @todo = (SELECT COUNT(*) FROM information_schema.columns
              WHERE table_schema = DATABASE() AND table_name = 'send_request'
                AND column_name = 'template' AND collation_name <> 'utf8mb4_bin');
SET @due = (SELECT COUNT(*) FROM information_schema.statistics
             WHERE table_schema = DATABASE() AND table_name = 'send_request'
               AND index_name = 'send_request_due');
SET @next = (SELECT COUNT(*) FROM information_schema.statistics
              WHERE table_schema = DATABASE() AND table_name = 'send_request'
                AND index_name = 'send_request_due_next');
SET @step = IF(@todo AND @due = 5 AND @next = 0, 'ALTER TABLE send_request
    ADD INDEX send_request_due_next (status, appid, priority, due_at),
    ALGORITHM = INPLACE, LOCK = NONE', 'DO 0');
PREPARE step FROM @step;
EXECUTE step;

-- 2. It takes the place of that one.
SET @step = IF(@todo AND @due = 5, @swap, 'DO 0');
PREPARE step FROM @step;
EXECUTE step;
SET @due = (SELECT COUNT(*) FROM information_schema.statistics
             WHERE table_schema = DATABASE() AND table_name = 'send_request'
               AND index_name = 'send_request_due');
SET @step = IF(@todo AND @due = 0, @rename_next, 'DO 0');
PREPARE step FROM @step;
EXECUTE step;

-- 3. The column, which is in no index now.
SET @step = IF(@todo, 'ALTER TABLE send_request
    MODIFY template VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    ALGORITHM = INPLACE, LOCK = NONE', 'DO 0');
PREPARE step FROM @step;
EXECUTE step;

-- 4. The index of before.
SET @due = (SELECT COUNT(*) FROM information_schema.statistics
             WHERE table_schema = DATABASE() AND table_name = 'send_request'
               AND index_name = 'send_request_due');
SET @next = (SELECT COUNT(*) FROM information_schema.statistics
              WHERE table_schema = DATABASE() AND table_name = 'send_request'
                AND index_name = 'send_request_due_next');
SET @step = IF(@due = 4 AND @next = 0, 'ALTER TABLE send_request
    ADD INDEX send_request_due_next (status, appid, priority, template, due_at),
    ALGORITHM = INPLACE, LOCK = NONE', 'DO 0');
PREPARE step FROM @step;
EXECUTE step;
SET @step = IF(@due = 4, @swap, 'DO 0');
PREPARE step FROM @step;
EXECUTE step;
SET @due = (SELECT COUNT(*) FROM information_schema.statistics
             WHERE table_schema = DATABASE() AND table_name = 'send_request'
               AND index_name = 'send_request_due');
SET @step = IF(@due = 0, @rename_next, 'DO 0');
PREPARE step FROM @step;
EXECUTE step;

-- The archive's column is in no index.
SET @todo = (SELECT COUNT(*) FROM information_schema.columns
              WHERE table_schema = DATABASE() AND table_name = 'send_request_archive'
                AND column_name = 'template' AND collation_name <> 'utf8mb4_bin');
SET @step = IF(@todo, 'ALTER TABLE send_request_archive
    MODIFY template VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    ALGORITHM = INPLACE, LOCK = NONE', 'DO 0');
PREPARE step FROM @step;
EXECUTE step;
DEALLOCATE PREPARE step;

-- +goose Down
-- The default collation of before is not known; this one serves older programs too.
SELECT 1;
