-- List indexes on rows and tables of prescore that no query uses because making them did not end, and that nobody makes now.
-- Parameters: none. Grain: one row per index.
SELECT n.nspname AS schema, c.relname AS name, format('%I.%I', tn.nspname, t.relname) AS relation
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid AND c.relkind = 'i'
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.relnamespace
WHERE n.nspname IN ('prescore', 'prescore_rows') AND NOT (i.indisvalid AND i.indisready)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index AS b WHERE b.index_relid = i.indexrelid)
ORDER BY n.nspname, c.relname
