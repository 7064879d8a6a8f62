-- Choose a few entities of the population by a hash of their key: the same ones each time, and not only the oldest.
-- Fragments: as_of (instant literal), entity_keys, entity_query, keys_read, key_missing, key_names, rows (integer literal).
-- Grain: one row per entity, at most so many, in the order of the hash.
WITH run(as_of) AS NOT MATERIALIZED (SELECT {as_of}),
judged AS (SELECT DISTINCT {entity_keys} FROM (
{entity_query}
) AS entities)
SELECT {keys_read} FROM judged
WHERE NOT ({key_missing})
ORDER BY hash_record_extended(ROW({key_names}), 0), {key_names}
LIMIT {rows}
