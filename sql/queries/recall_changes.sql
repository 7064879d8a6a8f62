-- Recall how many predictions changed in earlier published runs of a mode and model version, the newest first.
-- Parameters: pipeline (text), mode (full or incremental), model_version (integer), run_id (bigint, only runs before it),
-- most (bigint, runs). Grain: one row per run and output.
SELECT c.subject, c.evidence
FROM (
    SELECT r.run_id
    FROM prescore.runs AS r
    WHERE r.pipeline = :pipeline
      AND r.mode = :mode
      AND r.model_version = :model_version
      AND r.status = 'published'
      AND r.run_id < :run_id
    ORDER BY r.run_id DESC
    LIMIT :most
) AS recent
JOIN prescore.checks AS c USING (run_id)
WHERE c.check_id = 'outputs.flips' AND c.verdict IN ('pass', 'warn')
ORDER BY c.run_id DESC, c.subject
