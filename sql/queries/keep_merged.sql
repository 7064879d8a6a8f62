-- Keep the rows that a merge is about to replace.
-- Fragments: history, current, staged (tables), key_names, columns (of r: key, outputs), targets (names of these), key_matches.
-- Parameters: base (lineage), generation_id. Grain: one row per kept row.
INSERT INTO {history} ({targets}, prescore_base, as_of, scored_in, prescore_replaced_in, rejected)
SELECT {columns}, :base, r.as_of, r.scored_in, :generation_id, r.rejected
FROM {staged} AS s
JOIN {current} AS r ON {key_matches}
WHERE s.scored_in = :generation_id
