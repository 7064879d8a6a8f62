-- List what checks answered in the last runs that came to a judgement, newest first; full and incremental runs are limited
-- apart, since between two full runs there may be a hundred others.
-- Parameters: pipeline (text), check_ids (text[]), most (integer: runs of each mode). Grain: one row per run, check, subject.
WITH recent AS (
    SELECT latest.*
    FROM (VALUES ('full'), ('incremental')) AS mode (name)
    CROSS JOIN LATERAL (
        SELECT r.run_id, r.started_at, r.trigger, r.started_by, r.mode, r.status, r.model_version
        FROM prescore.runs AS r
        WHERE r.pipeline = :pipeline AND r.status IN ('published', 'held', 'aborted') AND r.mode = mode.name
        ORDER BY r.run_id DESC
        LIMIT :most
    ) AS latest
)
SELECT recent.run_id, recent.started_at, recent.trigger, recent.started_by, recent.mode, recent.status,
       recent.model_version, c.check_id, c.code, c.subject, c.verdict, c.effective, c.waived, c.observed, c.warn_limit, c.fail_limit, c.unit, c.n,
       c.reason, c.evidence ->> 'note' AS note
FROM recent
JOIN prescore.checks AS c ON c.run_id = recent.run_id AND c.check_id = ANY (CAST(:check_ids AS text[]))
ORDER BY recent.run_id DESC, c.check_id, c.subject
