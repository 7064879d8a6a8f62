-- List the entities that a run rejected.
-- Fragments: storage (table), key_object. Parameters: run_id, pipeline (text), generation_id, most (integer).
-- Grain: one row per rejected entity, at most :most.
INSERT INTO prescore.rejections (run_id, pipeline, key, reason)
SELECT :run_id, :pipeline, jsonb_build_object({key_object}), rejected
FROM {storage} WHERE scored_in = :generation_id AND rejected IS NOT NULL
LIMIT :most
