-- Count the rows of a source that arrived in a slice, in the run's snapshot.
-- Fragments: source (table), between (condition on the watermark), condition (the declared filter, or true).
-- Grain: one row. The condition stands on lines of its own: a comment may end it.
SELECT count(*) AS rows
FROM {source} AS source
WHERE (
{condition}
) AND {between}
