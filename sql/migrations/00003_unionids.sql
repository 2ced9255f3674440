-- v_identity takes an empty unionid of mini_user for NULL: strangers who have one are nobody's
-- other half, and not one person. The third branch is their own, because NULLIF around the column
-- would keep a search by unionid from the index.

-- +goose NO TRANSACTION
-- +goose Up
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
 WHERE f.openid IS NULL AND (m.unionid IS NULL OR m.unionid <> '')
UNION ALL
SELECT NULL, NULL, NULL, NULL, m.appid, m.openid
  FROM mini_user m
 WHERE m.unionid = '';

-- +goose Down
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
