-- Let the planner know how many keys there are in all storages together; autovacuum never looks at a partitioned table.
-- Without this a join to the view is expected to return hundreds of rows per key. Before PostgreSQL 18 it looks at the
-- keys of each storage too.
-- Fragments: only, rows (table), key_names. Grain: no rows.
ANALYZE {only}{rows} ({key_names})
