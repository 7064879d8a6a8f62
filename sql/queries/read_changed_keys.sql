-- Read the keys that changes.sql names, each once, to be judged on another server.
-- Fragments: as_of, since_at (instant literals), changed_keys, changes_query, keys_read. Grain: one row per changed key.
WITH run(as_of) AS NOT MATERIALIZED (SELECT {as_of}),
since(at) AS NOT MATERIALIZED (SELECT {since_at})
SELECT {keys_read} FROM (SELECT DISTINCT {changed_keys} FROM (
{changes_query}
) AS changes) AS judged
