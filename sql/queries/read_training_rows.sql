-- Read what is known to train on: labels joined to the features as they were at each label's as_of.
-- Fragments: as_of (instant literal), label_columns, label_query, key_names, feature_query, joined_columns, joined_on.
-- Grain: one row per row of labels.sql that has a feature row.
WITH run(as_of) AS (SELECT {as_of}),
labels AS MATERIALIZED (SELECT {label_columns} FROM (
{label_query}
) AS labels),
batch AS MATERIALIZED (SELECT DISTINCT {key_names}, as_of FROM labels)
SELECT {joined_columns}
FROM labels
JOIN (
{feature_query}
) AS features ON {joined_on}
ORDER BY labels.as_of, {ordered_keys}
