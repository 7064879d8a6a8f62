-- Read the first rows of a query, in no particular order.
-- Fragments: query, rows (integer literal). Grain: one row of the query, at most so many.
SELECT * FROM (
{query}
) AS found LIMIT {rows}
