-- Find a relation by the name that a query has for it.
-- Parameters: relation (text: quoted, with its schema or without). Grain: one row, or none.
SELECT n.nspname::text AS schema, c.relname::text AS name
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass(:relation)
