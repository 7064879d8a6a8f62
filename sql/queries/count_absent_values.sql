-- Count the values of a reference table, and those that no row of a slice has, in the run's snapshot.
-- Fragments: source, reference (tables), column (in both), between (condition on the watermark), condition (the declared
-- filter, or true).
-- Grain: one row. The condition stands on lines of its own: a comment may end it.
WITH prescore_expected AS (SELECT DISTINCT e.{column} AS value FROM {reference} AS e WHERE e.{column} IS NOT NULL),
prescore_arrived AS (SELECT DISTINCT source.{column} AS value FROM {source} AS source WHERE (
{condition}
) AND {between})
SELECT count(*) AS expected, count(*) FILTER (WHERE a.value IS NULL) AS absent
FROM prescore_expected AS e
LEFT JOIN prescore_arrived AS a ON a.value = e.value
