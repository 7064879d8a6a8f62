-- Note what a run has read of its dataset; a generation that a later run goes on with is noted again.
-- Parameters: pipeline (text), generation_id, digest, newest, modified_at, rows, outside (or NULL). Grain: one row.
INSERT INTO prescore.dataset_readings (pipeline, generation_id, digest, newest, modified_at, rows, outside)
VALUES (:pipeline, :generation_id, :digest, :newest, :modified_at, :rows, :outside)
ON CONFLICT (pipeline, generation_id) DO UPDATE
SET digest = excluded.digest, newest = excluded.newest, modified_at = excluded.modified_at, rows = excluded.rows,
    outside = excluded.outside, noted_at = clock_timestamp()
