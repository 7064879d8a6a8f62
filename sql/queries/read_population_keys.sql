-- Read the keys of the population, in the run's snapshot.
-- Fragments: as_of (instant literal), entity_keys, entity_query, within (condition on entities), keys_read.
-- Grain: one row per entity.
WITH run(as_of) AS NOT MATERIALIZED (SELECT {as_of})
SELECT {keys_read} FROM (SELECT {entity_keys} FROM (
{entity_query}
) AS entities WHERE {within}) AS judged
