-- List the columns of prescore's own tables that hold sentences.
-- Grain: one row per column; type is text, text[] or jsonb.
SELECT c.relname::text AS relation, a.attname::text AS name, format_type(a.atttypid, NULL) AS type
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
WHERE c.relnamespace = 'prescore'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
  AND a.attname IN ('message', 'reason', 'reasons', 'because', 'released_because', 'quarantined_because', 'pinned_because', 'problem',
                    'evidence')
ORDER BY c.relname, a.attnum
