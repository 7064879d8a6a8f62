-- Give each expected entity that has no feature row a row of its own that says so.
-- Fragments: storage (table), key_names, expected_keys (columns of e), as_of (instant literal), generation_id (integer literal).
-- Grain: one row per entity without features.
INSERT INTO {storage} ({key_names}, as_of, scored_in, rejected)
SELECT {expected_keys}, {as_of}, {generation_id}, 'no_features'
FROM pg_temp.expected_keys AS e
LEFT JOIN {storage} AS r USING ({key_names})
WHERE r.storage_id IS NULL
