-- The views that DBAs and producers read. They are documented in README.md; columns are added,
-- never renamed or removed.

-- +goose NO TRANSACTION
-- +goose Up

-- v_identity: one row per person and pair of accounts, the official account's side and the mini
-- program's side by side. Either side is NULL where the person is known on the other only.
CREATE OR REPLACE VIEW v_identity AS
SELECT f.unionid    AS unionid,
       f.appid      AS oa_appid,
       f.openid     AS oa_openid,
       f.subscribed AS subscribed,
       m.appid      AS mini_appid,
       m.openid     AS mini_openid
  FROM follower f
  LEFT JOIN mini_user m ON m.unionid = f.unionid
UNION ALL
SELECT m.unionid, NULL, NULL, NULL, m.appid, m.openid
  FROM mini_user m
  LEFT JOIN follower f ON f.unionid = m.unionid
 WHERE f.openid IS NULL;

-- v_coverage: one row per official account: how much of the map is known, and how many
-- mini-program users its template messages can reach.
CREATE OR REPLACE VIEW v_coverage AS
SELECT c.appid                                         AS appid,
       c.followers                                     AS followers,
       c.subscribed                                    AS subscribed,
       c.with_unionid                                  AS with_unionid,
       c.not_asked                                     AS not_asked,
       c.subscribed - c.with_unionid - c.not_asked     AS asked_without_unionid,
       (SELECT COUNT(*) FROM mini_user)                AS mini_users,
       (SELECT COUNT(*)
          FROM mini_user m
         WHERE EXISTS (SELECT 1
                         FROM follower r
                        WHERE r.unionid = m.unionid
                          AND r.appid = c.appid
                          AND r.subscribed = 1))       AS reachable_mini_users
  FROM (SELECT appid,
               COUNT(*)                                                                  AS followers,
               SUM(CASE WHEN subscribed = 1 THEN 1 ELSE 0 END)                           AS subscribed,
               SUM(CASE WHEN subscribed = 1 AND unionid IS NOT NULL THEN 1 ELSE 0 END)   AS with_unionid,
               SUM(CASE WHEN subscribed = 1 AND unionid IS NULL
                         AND info_at IS NULL THEN 1 ELSE 0 END)                          AS not_asked
          FROM follower
         GROUP BY appid) c;

-- v_send_status: the outcome of each request, with the receipt where one arrived. A withdrawn row
-- that no attempt holds can never be sent any more, so it reads cancelled before the daemon has
-- written that down.
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

-- +goose Down
DROP VIEW IF EXISTS v_send_status;
DROP VIEW IF EXISTS v_coverage;
DROP VIEW IF EXISTS v_identity;
