-- Name the columns of a changes query, without reading a row.
-- Fragments: as_of (instant literal), query. Grain: no rows.
WITH since(at) AS NOT MATERIALIZED (SELECT {as_of})
SELECT * FROM (
{query}
) AS changes LIMIT 0
