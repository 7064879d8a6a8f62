-- List the columns of a table with the types that COPY must match.
-- Fragments: schema, relation (text literals; this statement also runs on the data path, which takes no parameters).
-- Grain: one row per column, in order.
SELECT a.attname::text AS name, format_type(a.atttypid, NULL) AS type
FROM pg_catalog.pg_attribute AS a
JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND c.relname = {relation} AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
