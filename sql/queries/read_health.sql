-- Read the health of pipelines.
-- Parameters: pipeline (text, or NULL for all). Grain: one row per pipeline.
SELECT * FROM prescore.pipeline_health
WHERE CAST(:pipeline AS text) IS NULL OR pipeline = :pipeline
ORDER BY pipeline
