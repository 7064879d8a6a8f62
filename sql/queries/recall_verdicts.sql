-- Recall what the last scheduled and recovery runs answered to each check, newest first; skipped checks are left out.
-- Full and incremental runs are limited apart: between two full runs there may be a hundred others.
-- Parameters: pipeline (text), run_id (bigint: only runs before this one; NULL for all), most (integer: runs of each mode).
-- Grain: one row per check and subject, with an array element per run.
WITH recent AS (
    SELECT latest.*
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
SELECT c.check_id, c.subject,
       array_agg(recent.run_id ORDER BY recent.run_id DESC) AS run_ids,
       array_agg(recent.model_version ORDER BY recent.run_id DESC) AS model_versions,
       array_agg(c.verdict ORDER BY recent.run_id DESC) AS verdicts,
       array_agg(c.evidence ? 'small_sample' ORDER BY recent.run_id DESC) AS small_samples
FROM recent
JOIN prescore.checks AS c ON c.run_id = recent.run_id
WHERE c.verdict <> 'skipped'
GROUP BY c.check_id, c.subject
