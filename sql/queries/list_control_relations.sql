-- List the tables and views of the schema prescore.
-- Grain: one row per relation.
SELECT c.relname::text AS name FROM pg_catalog.pg_class AS c
WHERE c.relnamespace = 'prescore'::regnamespace AND c.relkind IN ('r', 'p', 'v') ORDER BY c.relname
