-- List entities that a query returns more than once.
-- Fragments: query, key_names. Grain: one row per entity, with how many rows it has; at most 1000.
SELECT {key_names}, count(*) AS rows, count(*) OVER () AS entities FROM (
{query}
) AS found
GROUP BY {key_names}
HAVING count(*) > 1
LIMIT 1000
