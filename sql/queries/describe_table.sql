-- Describe a table or view of a user: its columns in order, and which of them are its primary key.
-- Parameters: relation (text: a name as SQL writes it). A domain is described by its base type.
-- Grain: one row per column; none when there is no such table.
SELECT n.nspname AS schema, c.relname AS relation, a.attname AS name,
       format_type(base.oid, NULL) AS type, base.typtype::text AS typtype,
       (SELECT array_position(i.indkey::int2[], a.attnum) FROM pg_catalog.pg_index AS i
        WHERE i.indrelid = c.oid AND i.indisprimary) AS key_position
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
JOIN pg_catalog.pg_type AS base ON base.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
WHERE c.oid = to_regclass(:relation) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY a.attnum
