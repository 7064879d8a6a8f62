-- Compare what a run wrote with what is served, on a sample of whole pages.
-- Fragments: measures (aggregates over n, new, and s, served), staged and served (tables), key_matches. Parameters: share
-- (percent of the pages), generation_id. Grain: one row.
SELECT {measures}
FROM {staged} AS n TABLESAMPLE SYSTEM (:share)
JOIN {served} AS s ON {key_matches}
WHERE n.scored_in = :generation_id AND n.rejected IS NULL AND s.rejected IS NULL
