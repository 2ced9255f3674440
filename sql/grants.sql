-- Roles of unionbridge, for MySQL >= 8.0 and MariaDB >= 10.6. Run this as an administrator, with
-- the schema of unionbridge as the current one and after `unionbridge migrate up`; it can be run
-- again:
--
--     mysql unionbridge < grants.sql
--
-- On TiDB run grants-tidb.sql after it: rights on columns, which most of these are, grant nothing
-- there.
--
-- Then make users and give them a role. A role does nothing until it is the user's default one, and
-- the two servers spell that differently:
--
--     CREATE USER 'shop'@'10.0.%' IDENTIFIED BY '…';
--     GRANT unionbridge_producer TO 'shop'@'10.0.%';
--     SET DEFAULT ROLE unionbridge_producer TO  'shop'@'10.0.%';   -- MySQL
--     SET DEFAULT ROLE unionbridge_producer FOR 'shop'@'10.0.%';   -- MariaDB
--
-- It only adds: what an earlier version of this file granted stays until it is revoked.

CREATE ROLE IF NOT EXISTS unionbridge_producer;
CREATE ROLE IF NOT EXISTS unionbridge_login;
CREATE ROLE IF NOT EXISTS unionbridge_reader;
CREATE ROLE IF NOT EXISTS unionbridge_daemon;

-- Producer: the internal apps (docs/producers.md). They have the intake and nothing else: they
-- insert requests, withdraw them, and read what became of them (the view shows everybody's rows,
-- and whom each was sent to). They can neither write an outcome nor read the map. SELECT on the two
-- keys is what `UPDATE … WHERE id = …` needs. It has a price: for HANDLER, OPTIMIZE, ANALYZE, CHECK
-- and CHECKSUM TABLE MariaDB asks for a right on any column, so a producer who wants to can read
-- whole rows of send_request, messages included, and rebuild the table. Keep the role to programs
-- that you trust with that.
GRANT INSERT (appid, unionid, mini_appid, mini_openid, openid, template, data, url, mini_path,
              priority, due_at, expires_at, dedup_key),
      UPDATE (cancel),
      SELECT (id, dedup_key)
   ON send_request TO unionbridge_producer;
-- Which channels may be used, and what a subscribe message needs. Programs from before migration 7
-- ignore route: run this when the last of them has stopped.
GRANT INSERT (route, jump_appid, page, lang, mini_state) ON send_request TO unionbridge_producer;
GRANT SELECT ON v_send_status TO unionbridge_producer;

-- Login: the program that exchanges the codes of wx.login, and reports who the mini program's users
-- are. Keep it to that one program, with a user of its own: who writes mini_user decides whose each
-- mini-program openid is, and can redirect everybody's messages. For INSERT … ON DUPLICATE KEY
-- UPDATE MariaDB wants UPDATE on every inserted column and SELECT on every updated one.
GRANT INSERT (appid, openid, unionid, seen_at),
      UPDATE (appid, openid, unionid, seen_at),
      SELECT (unionid, seen_at)
   ON mini_user TO unionbridge_login;
-- What wx.requestSubscribeMessage answered them. Each accepted report allows one more message.
GRANT INSERT (appid, openid, template_id, result, report_key, accepted_at)
   ON subscription_report TO unionbridge_login;

-- Reader: DBAs, dashboards, reports. No message texts. The columns of send_request are what the
-- status view shows and what its index holds: no index serves a search by the view's status.
GRANT SELECT ON v_identity    TO unionbridge_reader;
GRANT SELECT ON v_coverage    TO unionbridge_reader;
GRANT SELECT ON v_send_status TO unionbridge_reader;
GRANT SELECT (id, dedup_key, appid, template, priority, due_at, expires_at, cancel, created_at, status, reason,
              errcode, errmsg, warning, attempts, attempted_at, channel, sent_openid, msgid, finished_at, wished_at)
   ON send_request TO unionbridge_reader;
GRANT SELECT (id, dedup_key, appid, template, priority, due_at, expires_at, created_at, status, reason, errcode, errmsg,
              warning, attempts, attempted_at, channel, sent_openid, msgid, finished_at, receipt_status, receipt_at,
              archived_at, wished_at)
   ON send_request_archive TO unionbridge_reader;
GRANT SELECT (route, jump_appid, lang, mini_state, application, fallback_from, fallback_reason, fallback_errcode)
   ON send_request TO unionbridge_reader;
GRANT SELECT (route, jump_appid, lang, mini_state, application, fallback_from, fallback_reason, fallback_errcode)
   ON send_request_archive TO unionbridge_reader;
GRANT SELECT ON send_receipt TO unionbridge_reader;
GRANT SELECT ON send_day     TO unionbridge_reader;
GRANT SELECT ON follower_recheck TO unionbridge_reader;
GRANT SELECT ON follower      TO unionbridge_reader;
GRANT SELECT ON mini_user     TO unionbridge_reader;
GRANT SELECT ON sync_run      TO unionbridge_reader;
GRANT SELECT ON account_state TO unionbridge_reader;
GRANT SELECT ON account_quota   TO unionbridge_reader;
GRANT SELECT ON account_problem TO unionbridge_reader;
GRANT SELECT ON lease         TO unionbridge_reader;
GRANT SELECT ON instance      TO unionbridge_reader;
GRANT SELECT ON subscription_grant   TO unionbridge_reader;
GRANT SELECT ON grant_event          TO unionbridge_reader;
GRANT SELECT ON subscription_report  TO unionbridge_reader;
GRANT SELECT ON send_attempt         TO unionbridge_reader;
GRANT SELECT ON withdrawn_permission TO unionbridge_reader;

-- Daemon: unionbridge itself. `*` is every table of the current schema, which belongs to it alone.
GRANT SELECT, INSERT, UPDATE, DELETE ON * TO unionbridge_daemon;

-- `unionbridge migrate up` changes tables and views too. Let an administrator run it, or take the
-- comment away to let the daemon's user. The views run as the user who created them (SQL SECURITY
-- DEFINER). Do not drop that user.
-- GRANT CREATE, ALTER, DROP, INDEX, CREATE VIEW, SHOW VIEW ON * TO unionbridge_daemon;
