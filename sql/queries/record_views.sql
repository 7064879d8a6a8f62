-- Remember which statements made the views and the lookup function of a pipeline.
-- Parameters: pipeline, digest (text). Grain: one row.
UPDATE prescore.pipelines SET views_digest = :digest WHERE pipeline = :pipeline
