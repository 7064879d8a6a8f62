-- List what readers saw of one entity.
-- Fragments: view (of the history), key_matches. Parameters: key_0, key_1, ... (text). Grain: one row per stretch of time, oldest first.
SELECT * FROM {view} AS p WHERE {key_matches} ORDER BY seen_from, seen_until NULLS LAST
