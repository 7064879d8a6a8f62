-- Select the served entities that are no longer in the population.
-- Fragments: as_of (instant literal), entity_keys, entity_query, storage (table), served_keys, key_names,
-- keys_read.
-- Queries of users see the CTEs before them: none has a name that a table of theirs would have.
-- Grain: one row per entity that is gone.
WITH run(as_of) AS NOT MATERIALIZED (SELECT {as_of}),
prescore_population AS (SELECT {entity_keys} FROM (
{entity_query}
) AS entities),
prescore_served AS (SELECT {served_keys} FROM {storage} AS served)
SELECT {keys_read}
FROM prescore_served AS judged
LEFT JOIN (SELECT *, true AS is_there FROM prescore_population) AS p USING ({key_names})
WHERE p.is_there IS NULL
