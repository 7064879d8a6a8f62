-- Read what a pipeline serves.
-- Parameters: pipeline (text). Grain: one row, or none before the first publication.
SELECT * FROM prescore.head WHERE pipeline = :pipeline
