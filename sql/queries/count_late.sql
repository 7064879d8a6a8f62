-- Count rows of a source around the last publication again, and those that arrived since, in the run's snapshot.
-- Fragments: counts (list of filtered counts), source (table), between (condition on the watermark), condition (the declared
-- filter, or true).
-- Grain: one row. The condition stands on lines of its own: a comment may end it.
SELECT {counts}
FROM {source} AS source
WHERE (
{condition}
) AND {between}
