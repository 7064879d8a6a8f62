-- Read the fingerprint of the features of every entity, in the run's snapshot.
-- Fragments: as_of (instant literal), entity_keys, entity_query, feature_keys, fingerprint (of features), fingerprint_name,
-- feature_query. Grain: one row per entity that has features.
WITH run(as_of) AS NOT MATERIALIZED (SELECT {as_of}),
batch AS (SELECT {entity_keys}, run.as_of FROM (
{entity_query}
) AS entities CROSS JOIN run)
SELECT {feature_keys}, {fingerprint} AS {fingerprint_name} FROM (
{feature_query}
) AS features
