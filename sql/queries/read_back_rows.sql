-- Read some rows of a storage back, to compare them with what was sent.
-- Fragments: storage (table), columns_read, key_arrays (array literals), key_names, key_matches, generation_id (literal: past instants
-- of an entity stand side by side). Grain: one row per key.
SELECT {columns_read}
FROM {storage} AS r
JOIN unnest({key_arrays}) AS sent({key_names}) ON {key_matches}
WHERE r.scored_in = {generation_id}
