-- Read the features of some entities, each at its own as_of.
-- Fragments: key_arrays and as_of_array (array literals), key_names, feature_columns, feature_query.
-- Grain: one row per (key, as_of).
WITH batch({key_names}, as_of) AS (SELECT * FROM unnest({key_arrays}, {as_of_array}))
SELECT {feature_columns} FROM (
{feature_query}
) AS features
