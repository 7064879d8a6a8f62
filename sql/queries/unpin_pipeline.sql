-- Welcome runs of a pipeline again.
-- Parameters: pipeline (text). Grain: one row, or none when it was not pinned.
UPDATE prescore.pipelines SET pinned_at = NULL, pinned_because = NULL
WHERE pipeline = :pipeline AND pinned_at IS NOT NULL RETURNING pipeline
