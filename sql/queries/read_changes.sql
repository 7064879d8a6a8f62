-- Read the keys that changes.sql names.
-- Fragments: since_at (instant literal), changed_keys, changes_query. Grain: as the query returns them.
WITH since(at) AS NOT MATERIALIZED (SELECT {since_at})
SELECT {changed_keys} FROM (
{changes_query}
) AS changes
