-- Read what a pipeline serves, and its state, by the clock of the database.
-- Parameters: pipeline (text). Grain: one row, or none where it is not registered.
SELECT state, generation_id, published_at, data_as_of FROM prescore.pipeline_health WHERE pipeline = :pipeline
