-- What subscribe messages and moves between channels need, and the ledger of what people allow.
--
-- Programs older than this migration go on working beside it: they name the columns that they write,
-- and each new one has a default. They know no route, so run sql/grants.sql, which lets producers
-- write it, when the last of them has stopped.
--
-- Appended columns without a value cost no copy of a table (INSTANT). Each statement can be run
-- again, hence the prepared ones: no server but MariaDB knows ADD COLUMN IF NOT EXISTS. One ALTER
-- adds all columns of a table or none, so that one of them stands for the others.

-- +goose NO TRANSACTION
-- +goose Up

-- Producers write route, jump_appid, page, lang and mini_state, the daemon the others. fallback_from
-- is the account that a moved request came from, the two behind it what that account said.
SET @ddl = (SELECT CASE COUNT(*) WHEN 0
                   THEN 'ALTER TABLE send_request
                             ADD COLUMN route            VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
                             ADD COLUMN jump_appid       VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
                             ADD COLUMN page             VARCHAR(1024) NULL DEFAULT NULL,
                             ADD COLUMN lang             VARCHAR(16)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
                             ADD COLUMN mini_state       VARCHAR(16)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
                             ADD COLUMN application      VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
                             ADD COLUMN fallback_from    VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
                             ADD COLUMN fallback_reason  VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
                             ADD COLUMN fallback_errcode INT           NULL DEFAULT NULL'
                   ELSE 'SELECT 1' END
              FROM information_schema.columns
             WHERE table_schema = DATABASE() AND table_name = 'send_request'
               AND column_name = 'fallback_errcode');
PREPARE add_column FROM @ddl;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;

SET @ddl = (SELECT CASE COUNT(*) WHEN 0
                   THEN 'ALTER TABLE send_request_archive
                             ADD COLUMN route            VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
                             ADD COLUMN jump_appid       VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
                             ADD COLUMN page             VARCHAR(1024) NULL DEFAULT NULL,
                             ADD COLUMN lang             VARCHAR(16)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
                             ADD COLUMN mini_state       VARCHAR(16)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
                             ADD COLUMN application      VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
                             ADD COLUMN fallback_from    VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
                             ADD COLUMN fallback_reason  VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
                             ADD COLUMN fallback_errcode INT           NULL DEFAULT NULL'
                   ELSE 'SELECT 1' END
              FROM information_schema.columns
             WHERE table_schema = DATABASE() AND table_name = 'send_request_archive'
               AND column_name = 'fallback_errcode');
PREPARE add_column FROM @ddl;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;

-- A sent event of a subscribe message may have to be matched without an msgid of ours.
SET @ddl = (SELECT CASE COUNT(*) WHEN 0
                   THEN 'ALTER TABLE send_receipt
                             ADD COLUMN template_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL'
                   ELSE 'SELECT 1' END
              FROM information_schema.columns
             WHERE table_schema = DATABASE() AND table_name = 'send_receipt'
               AND column_name = 'template_id');
PREPARE add_column FROM @ddl;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;

-- kind is one_time or long_term, WeChat's word for the template; NULL: not known yet. off_at is when
-- the person last switched the template off, refused_at when WeChat last said 43101: what came
-- before them is void. Written by package bridge/grants only, which computes it all from grant_event.
SET @ddl = (SELECT CASE COUNT(*) WHEN 0
                   THEN 'ALTER TABLE subscription_grant
                             ADD COLUMN kind       VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
                             ADD COLUMN off_at     TIMESTAMP(3) NULL DEFAULT NULL,
                             ADD COLUMN refused_at TIMESTAMP(3) NULL DEFAULT NULL'
                   ELSE 'SELECT 1' END
              FROM information_schema.columns
             WHERE table_schema = DATABASE() AND table_name = 'subscription_grant'
               AND column_name = 'refused_at');
PREPARE add_column FROM @ddl;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;

-- grant_event is the append-only ledger behind subscription_grant: one row for each cause, which its
-- event_key names, so that a repeated push counts once. The primary key keeps a person's events of a
-- template together. happened_at is WeChat's moment, the app's or the attempt's; arrived_at is when
-- the database learnt of it. request_id: of the message that was sent or refused.
CREATE TABLE IF NOT EXISTS grant_event (
    appid       VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    openid      VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    template_id VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    event_key   VARCHAR(160) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    kind        VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    source      VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    request_id  BIGINT UNSIGNED NULL DEFAULT NULL,
    happened_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    arrived_at  TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (appid, openid, template_id, event_key)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- subscription_report is where apps INSERT what wx.requestSubscribeMessage answered. The daemon takes
-- each row into the ledger within seconds and deletes it; a report that is inserted again counts
-- once by its report_key. accepted_at NULL: as it was inserted.
CREATE TABLE IF NOT EXISTS subscription_report (
    id          BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    appid       VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    openid      VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    template_id VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    result      VARCHAR(32)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    report_key  VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    accepted_at TIMESTAMP(3) NULL DEFAULT NULL,
    created_at  TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    UNIQUE KEY subscription_report_key (appid, openid, template_id, report_key),
    KEY subscription_report_next (appid, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- send_attempt has one row for each message that is on its way, or may have arrived without that we
-- know, on a channel whose attempts cannot be repeated. It is written directly before the POST and
-- deleted by whatever settles the attempt. It also holds one message of what the person allows.
CREATE TABLE IF NOT EXISTS send_attempt (
    request_id  BIGINT UNSIGNED NOT NULL,
    appid       VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    openid      VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    template_id VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    lease       VARCHAR(40)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    begun_at    TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (request_id),
    KEY send_attempt_grant (appid, openid, template_id, begun_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- instance says which features the program of a lease's holder has. It is no column of lease: a
-- program that does not know this table may take a lease over, and its holder then has no row here.
CREATE TABLE IF NOT EXISTS instance (
    holder        VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    feature_level INT          NOT NULL,
    announced_at  TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (holder)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- secret_key holds random keys of this installation, for the daemon's role alone.
CREATE TABLE IF NOT EXISTS secret_key (
    name       VARCHAR(32)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    value      VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    created_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- erased_person has a keyed hash of each account and openid that was erased in the last 30 days, so
-- that what was on its way then brings nobody back. Nobody can be named by it.
CREATE TABLE IF NOT EXISTS erased_person (
    hash      CHAR(64)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    erased_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (hash),
    KEY erased_person_age (erased_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- withdrawn_permission has what people no longer allow an account to know of them: permission is
-- RevokeInfo of user_authorization_revoke.
CREATE TABLE IF NOT EXISTS withdrawn_permission (
    appid        VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    openid       VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    permission   VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    withdrawn_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (appid, openid, permission)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

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
       r.wished_at    AS wished_at,
       r.route            AS route,
       r.application      AS application,
       r.fallback_from    AS fallback_from,
       r.fallback_reason  AS fallback_reason,
       r.fallback_errcode AS fallback_errcode
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
       s.arrived_at   AS receipt_at,
       r.wished_at    AS wished_at
  FROM send_request r
  LEFT JOIN send_receipt s ON s.appid = r.appid AND s.msgid = r.msgid;
DROP TABLE IF EXISTS withdrawn_permission;
DROP TABLE IF EXISTS erased_person;
DROP TABLE IF EXISTS secret_key;
DROP TABLE IF EXISTS instance;
DROP TABLE IF EXISTS send_attempt;
DROP TABLE IF EXISTS subscription_report;
DROP TABLE IF EXISTS grant_event;
ALTER TABLE subscription_grant DROP COLUMN refused_at, DROP COLUMN off_at, DROP COLUMN kind;
ALTER TABLE send_receipt DROP COLUMN template_id;
ALTER TABLE send_request_archive
    DROP COLUMN fallback_errcode, DROP COLUMN fallback_reason, DROP COLUMN fallback_from,
    DROP COLUMN application, DROP COLUMN mini_state, DROP COLUMN lang, DROP COLUMN page,
    DROP COLUMN jump_appid, DROP COLUMN route;
ALTER TABLE send_request
    DROP COLUMN fallback_errcode, DROP COLUMN fallback_reason, DROP COLUMN fallback_from,
    DROP COLUMN application, DROP COLUMN mini_state, DROP COLUMN lang, DROP COLUMN page,
    DROP COLUMN jump_appid, DROP COLUMN route;
