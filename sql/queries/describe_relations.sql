-- Describe tables that a plan reads: whose partitions they are, how large, and which columns an index of theirs begins with.
-- Fragments: relations (text[] literal of quoted names). A partial index does not count: it knows some rows only.
-- Grain: one row per table.
SELECT asked.relation,
       whole_namespace.nspname::text AS schema,
       whole.relname::text AS name,
       pg_relation_size(c.oid) AS bytes,
       greatest(c.reltuples, 0)::double precision AS rows,
       ARRAY(
           SELECT a.attname::text
           FROM pg_catalog.pg_index AS i
           JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
           WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL
       ) AS leading
FROM unnest({relations}) AS asked(relation)
JOIN pg_catalog.pg_class AS c ON c.oid = to_regclass(asked.relation)
JOIN pg_catalog.pg_class AS whole ON whole.oid = coalesce(pg_partition_root(c.oid), c.oid)
JOIN pg_catalog.pg_namespace AS whole_namespace ON whole_namespace.oid = whole.relnamespace
