-- Name the columns of a feature query, without reading a row.
-- Fragments: as_of (instant literal), key_nulls (a typed NULL per key column), query. Grain: no rows.
WITH run(as_of) AS NOT MATERIALIZED (SELECT {as_of}),
batch AS (SELECT {key_nulls}, run.as_of FROM run WHERE false)
SELECT * FROM (
{query}
) AS features LIMIT 0
