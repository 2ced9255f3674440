-- Roles of unionbridge on TiDB. Run this after grants.sql, as the same administrator and with the
-- same current schema; it can be run again:
--
--     mysql unionbridge < grants.sql
--     mysql unionbridge < grants-tidb.sql
--
-- TiDB stores rights on columns, shows them in SHOW GRANTS and honours none: by grants.sql alone a
-- producer may not insert. So the roles get rights on whole tables here, and as few as they can do
-- with. Users get their role as on MySQL: SET DEFAULT ROLE unionbridge_producer TO 'shop'@'10.0.%'.

-- Producer: INSERT and the status view. They can set the daemon's columns in their own INSERT, which
-- harms nobody else. They cannot withdraw: whoever may UPDATE one column of a table here may read
-- and rewrite all of it, other producers' messages and outcomes too. An operator withdraws with
-- `unionbridge requests cancel`. Where every producer may be trusted that far, take the comment away.
GRANT INSERT ON send_request TO unionbridge_producer;
-- GRANT SELECT, UPDATE ON send_request TO unionbridge_producer;

-- Login: the columns that grants.sql leaves out are created_at, and what is read of the map.
GRANT INSERT, SELECT, UPDATE ON mini_user TO unionbridge_login;
GRANT INSERT ON subscription_report TO unionbridge_login;

-- Reader: grants.sql keeps message texts from them, so on TiDB send_request and its archive are
-- closed: v_send_status shows the status of each request. Where readers may see messages and
-- recipients, take the comment away.
-- GRANT SELECT ON send_request         TO unionbridge_reader;
-- GRANT SELECT ON send_request_archive TO unionbridge_reader;
