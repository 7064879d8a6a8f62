-- Note what a run has read of its dataset.
-- Parameters: pipeline (text), generation_id, digest, newest, modified_at, rows, outside (or NULL). Grain: one row.
INSERT INTO prescore.dataset_readings (pipeline, generation_id, digest, newest, modified_at, rows, outside)
VALUES (:pipeline, :generation_id, :digest, :newest, :modified_at, :rows, :outside)
