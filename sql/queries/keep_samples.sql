-- Keep a fixed random share of entities with the predictions they got in this generation. The share is by key hash, so
-- that the same entities are kept from run to run.
-- Fragments: storage (table), key_object, output_object (jsonb_build_object arguments), key_hash (of r, another than that of
-- the ledger). Parameters: pipeline (text), generation_id, model_version, hashes (how many remainders of either sign are told
-- apart), below (the remainder that the kept ones stay below). Grain: one row per kept entity.
INSERT INTO prescore.prediction_samples (pipeline, generation_id, key, as_of, model_version, predictions)
SELECT :pipeline, :generation_id, jsonb_build_object({key_object}), as_of, :model_version, jsonb_build_object({output_object})
FROM {storage} AS r
WHERE scored_in = :generation_id AND rejected IS NULL AND mod({key_hash}, :hashes) < :below
