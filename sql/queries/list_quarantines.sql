-- List the quarantines of a pipeline, newest first.
-- Parameters: pipeline (text); most (integer). Grain: one row per quarantine.
SELECT generation_id, because, effect, returned_to, quarantined_at, quarantined_by, released_at, released_by,
       released_because
FROM prescore.quarantines
WHERE pipeline = :pipeline
ORDER BY quarantine_id DESC
LIMIT :most
