-- Refuse runs of a pipeline from now on.
-- Parameters: pipeline, because (text). Grain: one row.
UPDATE prescore.pipelines SET pinned_at = clock_timestamp(), pinned_because = :because WHERE pipeline = :pipeline
