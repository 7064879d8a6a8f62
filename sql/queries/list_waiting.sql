-- List who waits for a lock on tables and views of prescore, and for whom.
-- Parameters: longer_than (interval). Grain: one row per connection that waits.
SELECT a.pid, a.application_name, w.waitstart AS since, format('%I.%I', n.nspname, c.relname) AS relation,
       pg_blocking_pids(a.pid) AS blockers,
       (SELECT string_agg(format('backend %s (role %s, %s, %s)', b.pid, b.usename, coalesce(nullif(b.application_name, ''), 'unnamed'),
                                 b.state), '; ' ORDER BY b.pid)
        FROM pg_catalog.pg_stat_activity AS b WHERE b.pid = ANY (pg_blocking_pids(a.pid))) AS who
FROM pg_catalog.pg_locks AS w
JOIN pg_catalog.pg_stat_activity AS a ON a.pid = w.pid
JOIN pg_catalog.pg_class AS c ON c.oid = w.relation
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT w.granted AND w.locktype = 'relation' AND n.nspname IN ('prescore', 'prescore_rows', 'predictions')
  AND w.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND w.waitstart < clock_timestamp() - CAST(:longer_than AS interval)
ORDER BY w.waitstart
