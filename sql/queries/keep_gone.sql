-- Keep the rows of entities that are about to be removed.
-- Fragments: history, current (tables), key_arrays (array literals), key_names, columns (of r: key, outputs), targets (names of
-- these), key_matches, base, generation_id (literals). Grain: one row per kept row.
INSERT INTO {history} ({targets}, prescore_base, as_of, scored_in, prescore_replaced_in, rejected)
SELECT {columns}, {base}, r.as_of, r.scored_in, {generation_id}, r.rejected
FROM unnest({key_arrays}) AS gone({key_names})
JOIN {current} AS r ON {key_matches}
