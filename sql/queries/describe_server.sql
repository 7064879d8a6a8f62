-- Describe the server, this connection and its role: what an installation depends on beside its own tables.
-- Parameters: none. Grain: one row; settings are as SHOW writes them, NULL where the server has none of that name.
SELECT current_setting('server_version_num')::integer AS version_number, current_setting('server_version') AS version,
       statement_timestamp() AS now, pg_is_in_recovery() AS standby, CAST(current_user AS text) AS role, r.rolsuper AS superuser,
       pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_others,
       current_setting('autovacuum') AS autovacuum, current_setting('track_counts') AS track_counts,
       current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
       current_setting('default_transaction_read_only') AS read_only,
       current_setting('transaction_timeout', true) AS transaction_timeout,
       nullif(s.waits, 0) AS lock_ms,
       current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer AS most_connections,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity AS a WHERE a.backend_type = 'client backend') AS connections,
       nullif(r.rolconnlimit, -1) AS most_of_role,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity AS a WHERE a.usename = current_user) AS connections_of_role,
       nullif(d.datconnlimit, -1) AS most_of_database,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity AS a WHERE a.datid = d.oid) AS connections_of_database,
       host(inet_server_addr()) AS server_address, host(inet_client_addr()) AS client_address,
       (SELECT t.ssl FROM pg_catalog.pg_stat_ssl AS t WHERE t.pid = pg_backend_pid()) AS encrypted
FROM pg_catalog.pg_roles AS r
CROSS JOIN pg_catalog.pg_database AS d
CROSS JOIN (SELECT reset_val::bigint AS waits FROM pg_catalog.pg_settings WHERE name = 'lock_timeout') AS s
WHERE r.rolname = current_user AND d.datname = current_database()
