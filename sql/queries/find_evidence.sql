-- Find what a check kept in the run that made a generation.
-- Parameters: generation_id (bigint), check_id, subject (text). Grain: one row, or none.
SELECT c.evidence
FROM prescore.generations AS g
JOIN prescore.checks AS c ON c.run_id = g.run_id
WHERE g.generation_id = :generation_id AND c.check_id = :check_id AND c.subject = :subject
