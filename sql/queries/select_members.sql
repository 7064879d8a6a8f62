-- Select those of some keys that are entities, in the run's snapshot.
-- Fragments: as_of (instant literal), entity_keys, entity_query, key_arrays (array literals), key_names, keys_read.
-- Queries of users see the CTEs before them: none has a name that a table of theirs would have.
-- Grain: one row per entity.
WITH run(as_of) AS NOT MATERIALIZED (SELECT {as_of})
SELECT {keys_read} FROM (SELECT {entity_keys} FROM (
{entity_query}
) AS entities) AS judged
WHERE ({key_names}) IN (SELECT * FROM unnest({key_arrays}))
