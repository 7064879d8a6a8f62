-- Read a publication, and the quarantine that it is in.
-- Parameters: generation_id. Grain: one row, or none; because is NULL when it is in no quarantine.
SELECT g.pipeline, g.generation_id, g.mode, g.storage_id, g.published_at, g.undone_at, g.expires_at, g.serve_expired, g.model,
       g.model_version, q.quarantine_id, q.because, q.effect, q.returned_to, q.quarantined_at, q.quarantined_by
FROM prescore.generations AS g
LEFT JOIN prescore.quarantines AS q ON q.generation_id = g.generation_id AND q.released_at IS NULL
WHERE g.generation_id = :generation_id
