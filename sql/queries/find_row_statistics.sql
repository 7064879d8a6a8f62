-- Find how many rows of all storages together the planner last saw (-1: never), and whether ANALYZE can look at the
-- partitioned table alone (PostgreSQL 18).
-- Parameters: rows (text: the partitioned table, quoted). Grain: one row.
SELECT c.reltuples AS seen, current_setting('server_version_num')::integer >= 180000 AS alone
FROM pg_catalog.pg_class AS c
WHERE c.oid = CAST(:rows AS regclass)
