-- Recall what the last scheduled and recovery runs answered to each check, newest first; skipped checks are left out.
-- Full and incremental runs are limited apart: between two full runs there may be a hundred others.
-- Parameters: pipeline (text), run_id (bigint: only runs before this one; NULL for all), most (integer: runs of each mode).
-- Grain: one row per run, check and subject.
WITH recent AS (
    SELECT mode.name, latest.*
    FROM (VALUES ('full'), ('incremental')) AS mode (name)
    CROSS JOIN LATERAL (
        SELECT r.run_id, r.model_version
        FROM prescore.runs AS r
        WHERE r.pipeline = :pipeline AND (CAST(:run_id AS bigint) IS NULL OR r.run_id < :run_id)
          AND r.trigger IN ('scheduled', 'recovery') AND r.status <> 'skipped' AND r.mode = mode.name
        ORDER BY r.run_id DESC
        LIMIT :most
    ) AS latest
)
SELECT c.check_id, c.subject, c.run_id, recent.model_version, c.verdict, c.evidence ? 'small_sample' AS small_sample
FROM recent
JOIN prescore.checks AS c ON c.run_id = recent.run_id
WHERE c.verdict <> 'skipped'
ORDER BY c.run_id DESC
