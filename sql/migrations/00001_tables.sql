-- The tables of unionbridge. Portable subset: MySQL >= 8.0, MariaDB >= 10.6, Galera, TiDB. DDL
-- commits implicitly on these servers, so every statement here can be run a second time after a
-- crash in the middle.
--
-- Ids are ascii_bin because openids and unionids are case-sensitive. Moments are TIMESTAMP(3):
-- a producer whose session runs at +08:00 would shift a DATETIME default by eight hours. Each
-- TIMESTAMP has its NULL and DEFAULT written out, because MariaDB < 10.10 gives the first one of
-- a table a silent ON UPDATE otherwise.

-- +goose NO TRANSACTION
-- +goose Up

-- installation holds one random id, part of every client_msg_id: two databases that serve the
-- same official account never share one.
CREATE TABLE IF NOT EXISTS installation (
    singleton  TINYINT      NOT NULL DEFAULT 1,
    id         VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    created_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (singleton)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- 48 bits of a hash over the server's UUID: no function for random text exists on every server.
INSERT IGNORE INTO installation (singleton, id)
VALUES (1, LOWER(SUBSTRING(SHA2(CONCAT(UUID(), RAND(), CURRENT_TIMESTAMP(6)), 256), 1, 12)));

-- follower is the map: one row per person who follows or followed an official account. Written by
-- package bridge only. A sweep never deletes; an unfollow sets subscribed = 0. follower_unionid
-- carries subscribed so that counting the reachable mini-program users reads no row (v_coverage of
-- a million and a million: 1.9 s instead of 13.8 s). blocked_until: a receipt said that the person
-- refuses the account's messages; until then none is tried.
CREATE TABLE IF NOT EXISTS follower (
    appid           VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    openid          VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    unionid         VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    subscribed      TINYINT      NOT NULL DEFAULT 1,
    subscribe_time  TIMESTAMP    NULL DEFAULT NULL,
    subscribe_scene VARCHAR(64)  NULL DEFAULT NULL,
    qr_scene        BIGINT       NULL DEFAULT NULL,
    qr_scene_str    VARCHAR(128) NULL DEFAULT NULL,
    remark          VARCHAR(128) NULL DEFAULT NULL,
    groupid         INT          NULL DEFAULT NULL,
    tagid_list      JSON         NULL DEFAULT NULL,
    language        VARCHAR(16)  NULL DEFAULT NULL,
    info_at         TIMESTAMP(3) NULL DEFAULT NULL,
    blocked_until   TIMESTAMP(3) NULL DEFAULT NULL,
    created_at      TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    changed_at      TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (appid, openid),
    KEY follower_unionid (unionid, appid, subscribed)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- follower_recheck lists the few people about whom WeChat must be asked again: an answer without
-- the unionid, an unknown openid, a send that was refused as "not a follower". It stands beside
-- the map and not in it, so that ten million settled followers carry no index for it.
CREATE TABLE IF NOT EXISTS follower_recheck (
    appid    VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    openid   VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    reason   VARCHAR(32)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    attempts INT          NOT NULL DEFAULT 0,
    due_at   TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (appid, openid),
    KEY follower_recheck_due (appid, due_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- mini_user holds one row per mini-program user. The apps INSERT here what wx.login told them.
CREATE TABLE IF NOT EXISTS mini_user (
    appid      VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    openid     VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    unionid    VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    created_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    seen_at    TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (appid, openid),
    KEY mini_user_unionid (unionid)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- sync_run is the ledger: one row per run, also where a restart resumes it. next_openid is the
-- cursor of the last page that was spooled; calls maps an endpoint to the number of calls made;
-- mode is rebind where all unionids have changed and every follower is fetched again; missing
-- counts the followers who are not in WeChat's list; a suspended run resumes at resume_at.
CREATE TABLE IF NOT EXISTS sync_run (
    id          BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    kind        VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    appid       VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    mode        VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT 'normal',
    state       VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    holder      VARCHAR(128) NOT NULL,
    started_at  TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at  TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    ended_at    TIMESTAMP(3) NULL DEFAULT NULL,
    resume_at   TIMESTAMP(3) NULL DEFAULT NULL,
    pages       INT          NOT NULL DEFAULT 0,
    total       BIGINT       NOT NULL DEFAULT 0,
    listed      BIGINT       NOT NULL DEFAULT 0,
    added       BIGINT       NOT NULL DEFAULT 0,
    changed     BIGINT       NOT NULL DEFAULT 0,
    missing     BIGINT       NOT NULL DEFAULT 0,
    gone        BIGINT       NOT NULL DEFAULT 0,
    calls       JSON         NULL DEFAULT NULL,
    next_openid VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    error       TEXT         NULL DEFAULT NULL,
    PRIMARY KEY (id),
    KEY sync_run_latest (appid, kind, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- send_request is the intake. Producers INSERT the first block and may UPDATE cancel; the daemon
-- owns the second block. send_request_due serves scheduling, retry, lease and rescue alike;
-- template stands before due_at so that one template's campaign does not stand in the way of the
-- others of its priority. send_request_msgid finds the request that a receipt belongs to.
-- AUTO_ID_CACHE 1 lets ids grow with time on a TiDB cluster too, where each node has a block of
-- them otherwise: "requests list --since" and "the newest" go by ids. TiDB sets it at the creation
-- only.
CREATE TABLE IF NOT EXISTS send_request (
    id           BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    appid        VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    unionid      VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    mini_appid   VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    mini_openid  VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    openid       VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    template     VARCHAR(128)  NOT NULL,
    data         JSON          NOT NULL,
    url          VARCHAR(2048) NULL DEFAULT NULL,
    mini_path    VARCHAR(1024) NULL DEFAULT NULL,
    priority     TINYINT       NOT NULL DEFAULT 1,
    due_at       TIMESTAMP(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    expires_at   TIMESTAMP(3)  NULL DEFAULT NULL,
    dedup_key    VARCHAR(128)  CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    cancel       TINYINT       NOT NULL DEFAULT 0,
    created_at   TIMESTAMP(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),

    status       VARCHAR(16)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT 'pending',
    reason       VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    errcode      INT           NULL DEFAULT NULL,
    errmsg       VARCHAR(1024) NULL DEFAULT NULL,
    warning      VARCHAR(1024) NULL DEFAULT NULL,
    attempts     INT           NOT NULL DEFAULT 0,
    attempted_at TIMESTAMP(3)  NULL DEFAULT NULL,
    uncertain_at TIMESTAMP(3)  NULL DEFAULT NULL,
    lease        VARCHAR(40)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    channel      VARCHAR(16)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    sent_openid  VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    msgid        BIGINT        NULL DEFAULT NULL,
    finished_at  TIMESTAMP(3)  NULL DEFAULT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY send_request_dedup (dedup_key),
    KEY send_request_due (status, appid, priority, template, due_at),
    KEY send_request_msgid (msgid)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 /*T![auto_id_cache] AUTO_ID_CACHE 1 */;

-- send_request_archive takes finished requests before they are deleted, where the configuration
-- asks for it.
CREATE TABLE IF NOT EXISTS send_request_archive (
    id           BIGINT UNSIGNED NOT NULL,
    appid        VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    unionid      VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    mini_appid   VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    mini_openid  VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    openid       VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    template     VARCHAR(128)  NOT NULL,
    data         JSON          NOT NULL,
    url          VARCHAR(2048) NULL DEFAULT NULL,
    mini_path    VARCHAR(1024) NULL DEFAULT NULL,
    priority     TINYINT       NOT NULL,
    due_at       TIMESTAMP(3)  NULL DEFAULT NULL,
    expires_at   TIMESTAMP(3)  NULL DEFAULT NULL,
    dedup_key    VARCHAR(128)  CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    created_at   TIMESTAMP(3)  NULL DEFAULT NULL,
    status       VARCHAR(16)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    reason       VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    errcode      INT           NULL DEFAULT NULL,
    errmsg       VARCHAR(1024) NULL DEFAULT NULL,
    warning      VARCHAR(1024) NULL DEFAULT NULL,
    attempts     INT           NOT NULL,
    attempted_at TIMESTAMP(3)  NULL DEFAULT NULL,
    channel      VARCHAR(16)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    sent_openid  VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
    msgid        BIGINT        NULL DEFAULT NULL,
    finished_at  TIMESTAMP(3)  NULL DEFAULT NULL,
    receipt_status VARCHAR(64) NULL DEFAULT NULL,
    receipt_at   TIMESTAMP(3)  NULL DEFAULT NULL,
    archived_at  TIMESTAMP(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    KEY send_request_archive_dedup (dedup_key)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- send_day counts the messages of each account and day, from one reset of WeChat's quotas to the
-- next: an account's own budget is a limit over all instances and restarts.
CREATE TABLE IF NOT EXISTS send_day (
    appid VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    day   DATE        NOT NULL,
    sent  BIGINT      NOT NULL DEFAULT 0,
    PRIMARY KEY (appid, day)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- send_receipt is append-only: what TEMPLATESENDJOBFINISH said, with the spaces of its status
-- brought into one form. A receipt may arrive before the sender's own commit, so it is never an
-- UPDATE of send_request. event_at is WeChat's own time of the event.
CREATE TABLE IF NOT EXISTS send_receipt (
    appid      VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    msgid      BIGINT       NOT NULL,
    openid     VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    status     VARCHAR(64)  NOT NULL,
    event_at   TIMESTAMP    NULL DEFAULT NULL,
    arrived_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (appid, msgid),
    KEY send_receipt_openid (appid, openid),
    KEY send_receipt_arrived (arrived_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- subscription_grant counts the subscribe messages a mini-program user has accepted and we have
-- not used yet.
CREATE TABLE IF NOT EXISTS subscription_grant (
    appid       VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    openid      VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    template_id VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    remaining   INT          NOT NULL DEFAULT 0,
    updated_at  TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (appid, openid, template_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- account_state says why an account's work is paused and until when. scope is send, or
-- template:<id> where one template alone is paused. All instances read it. paused_until NULL: until
-- the cause is fixed.
CREATE TABLE IF NOT EXISTS account_state (
    appid        VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    scope        VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    reason       VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    errcode      INT           NULL DEFAULT NULL,
    errmsg       VARCHAR(1024) NULL DEFAULT NULL,
    since        TIMESTAMP(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    paused_until TIMESTAMP(3)  NULL DEFAULT NULL,
    PRIMARY KEY (appid, scope)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- lease gives one instance the right to a job. The epoch grows at every change of hands.
CREATE TABLE IF NOT EXISTS lease (
    name       VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    holder     VARCHAR(128) NOT NULL,
    epoch      BIGINT       NOT NULL DEFAULT 0,
    expires_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;

-- +goose Down
DROP TABLE IF EXISTS lease;
DROP TABLE IF EXISTS account_state;
DROP TABLE IF EXISTS subscription_grant;
DROP TABLE IF EXISTS send_receipt;
DROP TABLE IF EXISTS send_day;
DROP TABLE IF EXISTS send_request_archive;
DROP TABLE IF EXISTS send_request;
DROP TABLE IF EXISTS sync_run;
DROP TABLE IF EXISTS mini_user;
DROP TABLE IF EXISTS follower_recheck;
DROP TABLE IF EXISTS follower;
DROP TABLE IF EXISTS installation;
