-- Read the features of every entity of the population, in the run's snapshot.
-- Fragments: as_of (instant literal), entity_keys, entity_query, within (condition on entities), feature_columns,
-- feature_query.
-- Grain: one row per entity, as the contract of the feature query promises and the ledger proves.
WITH run(as_of) AS NOT MATERIALIZED (SELECT {as_of}),
batch AS (SELECT {entity_keys}, run.as_of FROM (
{entity_query}
) AS entities CROSS JOIN run WHERE {within})
SELECT {feature_columns} FROM (
{feature_query}
) AS features
