-- Count the rows of a pipeline by the state that a reader sees now.
-- Parameters: view (text: the view of readers, quoted). Grain: one row per state that occurs.
SELECT p.state, count(*) AS rows
FROM {view} AS p
GROUP BY p.state
