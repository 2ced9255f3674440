-- wished_at is the moment from which a request could have gone: due_at as its producer wrote it, or
-- when its recipient appeared or an operator gave it back. due_at moves with each claim and each
-- postponement, so how late a request is cannot be said by it. NULL: not claimed yet, due_at says it.
--
-- Appended columns without a value cost no copy of the table (INSTANT). No server but MariaDB knows
-- ADD COLUMN IF NOT EXISTS, hence the prepared statements: a migration can be run again.

-- +goose NO TRANSACTION
-- +goose Up
SET @ddl = (SELECT CASE COUNT(*) WHEN 0
                   THEN 'ALTER TABLE send_request ADD COLUMN wished_at TIMESTAMP(3) NULL DEFAULT NULL'
                   ELSE 'SELECT 1' END
              FROM information_schema.columns
             WHERE table_schema = DATABASE() AND table_name = 'send_request'
               AND column_name = 'wished_at');
PREPARE add_column FROM @ddl;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;

SET @ddl = (SELECT CASE COUNT(*) WHEN 0
                   THEN 'ALTER TABLE send_request_archive ADD COLUMN wished_at TIMESTAMP(3) NULL DEFAULT NULL'
                   ELSE 'SELECT 1' END
              FROM information_schema.columns
             WHERE table_schema = DATABASE() AND table_name = 'send_request_archive'
               AND column_name = 'wished_at');
PREPARE add_column FROM @ddl;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;

CREATE OR REPLACE VIEW v_send_status AS
SELECT r.id           AS id,
       r.dedup_key    AS dedup_key,
       r.appid        AS appid,
       r.template     AS template,
       r.priority     AS priority,
       CASE WHEN r.cancel <> 0 AND r.lease IS NULL AND r.uncertain_at IS NULL
             AND r.status IN ('pending', 'waiting') THEN 'cancelled'
            ELSE r.status END AS status,
       r.reason       AS reason,
       r.errcode      AS errcode,
       r.errmsg       AS errmsg,
       r.warning      AS warning,
       r.attempts     AS attempts,
       r.created_at   AS created_at,
       r.due_at       AS due_at,
       r.attempted_at AS attempted_at,
       r.finished_at  AS finished_at,
       r.channel      AS channel,
       r.sent_openid  AS sent_openid,
       r.msgid        AS msgid,
       s.status       AS receipt_status,
       s.arrived_at   AS receipt_at,
       r.wished_at    AS wished_at
  FROM send_request r
  LEFT JOIN send_receipt s ON s.appid = r.appid AND s.msgid = r.msgid;

-- +goose Down
CREATE OR REPLACE VIEW v_send_status AS
SELECT r.id           AS id,
       r.dedup_key    AS dedup_key,
       r.appid        AS appid,
       r.template     AS template,
       r.priority     AS priority,
       CASE WHEN r.cancel <> 0 AND r.lease IS NULL AND r.uncertain_at IS NULL
             AND r.status IN ('pending', 'waiting') THEN 'cancelled'
            ELSE r.status END AS status,
       r.reason       AS reason,
       r.errcode      AS errcode,
       r.errmsg       AS errmsg,
       r.warning      AS warning,
       r.attempts     AS attempts,
       r.created_at   AS created_at,
       r.due_at       AS due_at,
       r.attempted_at AS attempted_at,
       r.finished_at  AS finished_at,
       r.channel      AS channel,
       r.sent_openid  AS sent_openid,
       r.msgid        AS msgid,
       s.status       AS receipt_status,
       s.arrived_at   AS receipt_at
  FROM send_request r
  LEFT JOIN send_receipt s ON s.appid = r.appid AND s.msgid = r.msgid;
ALTER TABLE send_request_archive DROP COLUMN wished_at;
ALTER TABLE send_request DROP COLUMN wished_at;
