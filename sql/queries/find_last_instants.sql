-- Find the instants that a check gave in the newest full run that was published and stands.
-- Parameters: pipeline, check_id, subject (text). Grain: one row, or none.
SELECT c.warn_until, c.fail_until
FROM prescore.runs AS r
JOIN prescore.generations AS g ON g.run_id = r.run_id
JOIN prescore.checks AS c ON c.run_id = r.run_id
WHERE r.pipeline = :pipeline AND r.status = 'published' AND r.mode = 'full' AND g.undone_at IS NULL
  AND c.check_id = :check_id AND c.subject = :subject
ORDER BY r.run_id DESC
LIMIT 1
