-- List the latest publications of a pipeline.
-- Parameters: pipeline (text), most (how many). Grain: one row per generation, newest first.
SELECT generation_id, mode, published_at, undone_at, quarantined_at
FROM prescore.generations WHERE pipeline = :pipeline
ORDER BY generation_id DESC LIMIT :most
