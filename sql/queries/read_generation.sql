-- Read a publication as it was published, with how the run that made it was told to end.
-- Parameters: generation_id (bigint). Grain: one row.
SELECT g.*, r.scored, r.rejected
FROM prescore.generations AS g
JOIN prescore.runs AS r ON r.run_id = g.run_id
WHERE g.generation_id = :generation_id
