-- Export the snapshot of a run, with the clock, what head serves, and when the oldest open transaction started.
-- That start is moved to the time of prescore.clock(), which tests and the demo set. Connections of prescore that only
-- read are left out: they write no source.
-- Parameters: pipeline (text), lock_pid (backend of the run's lock). Grain: one row.
SELECT pg_export_snapshot() AS snapshot,
       prescore.clock() AS now,
       statement_timestamp() AS real_now,
       (SELECT h.as_of FROM prescore.head AS h WHERE h.pipeline = :pipeline) AS head_as_of,
       (SELECT min(a.xact_start) + (prescore.clock() - statement_timestamp())
        FROM pg_catalog.pg_stat_activity AS a
        WHERE a.datname = current_database() AND a.backend_type = 'client backend'
          AND a.pid NOT IN (pg_backend_pid(), CAST(:lock_pid AS integer))
          AND a.application_name NOT IN ('prescore reader', 'prescore snapshot', 'prescore heartbeat', 'prescore backfill')) AS oldest_transaction,
       pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_transactions
