-- Say whether it is noted when anybody but prescore writes into the rows of a pipeline: into all of them, or one storage.
-- Parameters: rows (text: the partitioned table, quoted). Grain: one row.
SELECT count(*) = 4 AS watched
FROM pg_catalog.pg_trigger AS t
LEFT JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = t.tgrelid
WHERE t.tgname = 'prescore_foreign_write' AND t.tgenabled IN ('O', 'A')
  AND CAST(:rows AS regclass) IN (t.tgrelid, i.inhparent)
