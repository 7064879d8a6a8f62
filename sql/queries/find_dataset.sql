-- Find what a generation has read of its dataset.
-- Parameters: pipeline (text), generation_id. Grain: one row, or none.
SELECT digest, newest, modified_at, rows, outside
FROM prescore.dataset_readings
WHERE pipeline = :pipeline AND generation_id = :generation_id
