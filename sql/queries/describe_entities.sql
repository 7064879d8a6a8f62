-- Name the columns of an entity query, without reading a row.
-- Fragments: as_of (instant literal), query. Grain: no rows.
WITH run(as_of) AS NOT MATERIALIZED (SELECT {as_of})
SELECT * FROM (
{query}
) AS entities LIMIT 0
