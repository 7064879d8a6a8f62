-- Read the labels of a range of instants: the rows of labels.sql, asked at the run's as_of.
-- Fragments: as_of, after, until (instant literals), label_columns, label_query. Grain: one row per known label.
WITH run(as_of) AS NOT MATERIALIZED (SELECT {as_of})
SELECT {label_columns} FROM (
{label_query}
) AS labels
WHERE labels.as_of > {after} AND labels.as_of <= {until} AND labels.label IS NOT NULL
