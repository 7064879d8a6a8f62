-- List tables of prescore whose autovacuum was turned off.
-- Parameters: none. Grain: one row per table.
SELECT n.nspname AS schema, c.relname AS name
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname IN ('prescore', 'prescore_rows') AND c.relkind = 'r'
  AND EXISTS (SELECT FROM unnest(c.reloptions) AS o (option) WHERE o.option ~ '^autovacuum_enabled=(off|false|no|0)')
ORDER BY n.nspname, c.relname
