-- Read the books of the last run that ended.
-- Parameters: pipeline. Result: one row, counts of entities, seconds by the real clock, rows_per_second.
SELECT
    run_id, generation_id, mode, status, population, scored, unchanged, rejected, new, changed, due, gone,
    rows_per_second, message, extract(epoch FROM ended_at - started_at)::double precision AS seconds
FROM prescore.runs
WHERE pipeline = :pipeline AND ended_at IS NOT NULL
ORDER BY run_id DESC
LIMIT 1
