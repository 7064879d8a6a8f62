-- Read the health of every pipeline, with no right but to read the view.
-- Parameters: none. Grain: one row per pipeline.
SELECT * FROM prescore.pipeline_health ORDER BY pipeline
