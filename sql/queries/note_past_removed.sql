-- Note that nothing of a pipeline is past its retention any more.
-- Parameters: pipeline (text). Grain: no rows.
UPDATE prescore.pipelines SET past_removed_at = prescore.clock() WHERE pipeline = :pipeline
