-- Remove what runs have kept of predictions that they never published: of generations between the last one that was, and
-- this one.
-- Parameters: pipeline (text), generation_id (of this run). Grain: no rows.
DELETE FROM prescore.prediction_samples
WHERE pipeline = :pipeline AND generation_id < :generation_id AND generation_id > (
    SELECT coalesce(max(generation_id), 0) FROM prescore.generations WHERE pipeline = :pipeline)
