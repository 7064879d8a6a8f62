-- List the indexes, but for the key, that were made for all storages of a pipeline at once.
-- Parameters: rows (text: the partitioned table, quoted). Grain: one row per index; name is quoted, with its schema.
SELECT format('%I.%I', n.nspname, c.relname) AS name
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE i.indrelid = CAST(:rows AS regclass) AND NOT i.indisprimary
ORDER BY 1
