-- List the indexes of tables and of their partitions.
-- Parameters: tables (oid[]). Grain: one row per index; name without its schema.
SELECT c.relname AS name
FROM unnest(CAST(:tables AS oid[])) AS w (oid)
CROSS JOIN LATERAL pg_catalog.pg_partition_tree(w.oid::regclass) AS t
JOIN pg_catalog.pg_index AS i ON i.indrelid = t.relid
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
UNION
SELECT c.relname
FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = ANY (CAST(:tables AS oid[]))
ORDER BY name
