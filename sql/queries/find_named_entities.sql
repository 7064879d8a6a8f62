-- Find which of some named entities are in the population.
-- Fragments: as_of (instant literal), entity_keys, entity_query, keys_read, key_arrays (array literals), key_names, position
-- (a column name that the key does not have).
-- Grain: one row per named entity that is there, with its position among the names, counted from 1.
WITH run(as_of) AS NOT MATERIALIZED (SELECT {as_of}),
judged AS (SELECT DISTINCT {entity_keys} FROM (
{entity_query}
) AS entities),
named({key_names}, {position}) AS (SELECT * FROM unnest({key_arrays}) WITH ORDINALITY)
SELECT {keys_read}, named.{position} FROM judged JOIN named USING ({key_names})
ORDER BY named.{position}
