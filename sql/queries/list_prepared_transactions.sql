-- List the transactions of this database that were prepared for a commit in two phases and wait for it.
-- Parameters: longer_than (interval). Grain: one row per transaction, the oldest first.
SELECT p.gid, CAST(p.owner AS text) AS role, p.prepared AS since
FROM pg_catalog.pg_prepared_xacts AS p
WHERE p.database = current_database() AND p.prepared < clock_timestamp() - CAST(:longer_than AS interval)
ORDER BY p.prepared
