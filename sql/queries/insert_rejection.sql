-- List an entity that a run could not score.
-- Parameters: run_id, pipeline, reason (text), key (jsonb). Grain: one row.
INSERT INTO prescore.rejections (run_id, pipeline, key, reason) VALUES (:run_id, :pipeline, CAST(:key AS jsonb), :reason)
