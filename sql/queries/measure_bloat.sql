-- Measure how large a storage is, and how large its rows would be with nothing between them: a header, an item pointer and what
-- the planner saw of each column, rounded up to 8 bytes; pages are 8,168 bytes.
-- Parameters: schema, storage (text: names). Grain: one row; rows are -1, or analysed is false, before it was analysed.
SELECT c.reltuples::bigint AS rows, pg_relation_size(c.oid) AS bytes, pg_indexes_size(c.oid) AS index_bytes,
       coalesce(pg_stat_get_dead_tuples(c.oid), 0) AS dead,
       (SELECT ceil(c.reltuples / greatest(1, floor(8168 / (28 + 8 * ceil((sum(s.avg_width * (1 - s.null_frac)) + 8) / 8))))) * 8192
        FROM pg_catalog.pg_stats AS s
        WHERE s.schemaname = :schema AND s.tablename = :storage)::bigint AS needed,
       EXISTS (SELECT FROM pg_catalog.pg_stats AS s WHERE s.schemaname = :schema AND s.tablename = :storage) AS analysed
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND c.relname = :storage
