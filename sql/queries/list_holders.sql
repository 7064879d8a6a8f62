-- List who holds locks on tables and views of prescore, the longest first.
-- Parameters: none. Grain: one row per connection; since is when its transaction began.
SELECT a.pid, a.usename, a.application_name, a.state, a.xact_start AS since,
       array_agg(DISTINCT format('%s.%s', n.nspname, c.relname)) AS relations, array_agg(DISTINCT l.mode) AS modes
FROM pg_catalog.pg_locks AS l
JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND n.nspname IN ('prescore', 'prescore_rows', 'predictions')
GROUP BY a.pid, a.usename, a.application_name, a.state, a.xact_start
ORDER BY a.xact_start, a.pid
