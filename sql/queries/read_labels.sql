-- Read what is known to train on: the rows of labels.sql.
-- Fragments: as_of (instant literal), label_columns, label_query. Grain: one row per row of labels.sql.
WITH run(as_of) AS NOT MATERIALIZED (SELECT {as_of})
SELECT {label_columns} FROM (
{label_query}
) AS labels
