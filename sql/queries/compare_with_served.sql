-- Compare what a run wrote with what is served, on a sample of whole pages. Each sampled row asks the index of what is
-- served: OFFSET 0 keeps the planner from reading all of it to join a hundredth.
-- Fragments: measures (aggregates over n, new, and s, served), staged and served (tables), key_matches. Parameters: share
-- (percent of the pages), generation_id. Grain: one row.
SELECT {measures}
FROM {staged} AS n TABLESAMPLE SYSTEM (:share)
CROSS JOIN LATERAL (SELECT s.* FROM {served} AS s WHERE {key_matches} OFFSET 0) AS s
WHERE n.scored_in = :generation_id AND n.rejected IS NULL AND s.rejected IS NULL
