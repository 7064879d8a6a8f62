-- List which of the relations and functions that a pipeline may have are there.
-- Parameters: kinds, names (text[]: qualified and quoted, functions with their types), position for position. Grain: one row per
-- object that is there, in their order; rows is what PostgreSQL last estimated, bytes with indexes and partitions.
SELECT w.kind, w.name, o.oid,
       CASE WHEN w.kind = 'table' THEN (
           SELECT sum(greatest(c.reltuples, 0))::bigint FROM pg_catalog.pg_partition_tree(o.oid::regclass) AS t
           JOIN pg_catalog.pg_class AS c ON c.oid = t.relid WHERE t.isleaf) END AS rows,
       CASE WHEN w.kind = 'table' THEN (
           SELECT sum(pg_catalog.pg_total_relation_size(t.relid))::bigint
           FROM pg_catalog.pg_partition_tree(o.oid::regclass) AS t) END AS bytes
FROM unnest(CAST(:kinds AS text[]), CAST(:names AS text[])) WITH ORDINALITY AS w (kind, name, position)
CROSS JOIN LATERAL (
    SELECT CASE w.kind WHEN 'function' THEN to_regprocedure(w.name)::oid ELSE to_regclass(w.name)::oid END AS oid
) AS o
WHERE o.oid IS NOT NULL
ORDER BY w.position
