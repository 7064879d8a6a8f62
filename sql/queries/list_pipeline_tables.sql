-- List the control tables that have rows of pipelines, and which of them refer to which.
-- Grain: one row per table; name is quoted, with its schema.
SELECT format('prescore.%I', c.relname) AS name,
       ARRAY(SELECT DISTINCT format('prescore.%I', f.relname) FROM pg_catalog.pg_constraint AS k
             JOIN pg_catalog.pg_class AS f ON f.oid = k.confrelid
             WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.confrelid <> c.oid) AS parents
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'pipeline' AND NOT a.attisdropped
WHERE c.relnamespace = 'prescore'::regnamespace AND c.relkind = 'r'
ORDER BY 1
