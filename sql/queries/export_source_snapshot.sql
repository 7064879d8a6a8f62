-- Export the snapshot of a run on the server of the sources, with that server's clock and when its oldest open transaction
-- started. Connections of prescore that only read are left out: they write no source.
-- Parameters: none. Grain: one row.
SELECT pg_export_snapshot() AS snapshot,
       statement_timestamp() AS now,
       (SELECT min(a.xact_start)
        FROM pg_catalog.pg_stat_activity AS a
        WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
          AND a.application_name NOT IN ('prescore reader', 'prescore snapshot', 'prescore heartbeat', 'prescore backfill')) AS oldest_transaction,
       pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_transactions
