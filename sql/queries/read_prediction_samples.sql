-- Read the predictions that were kept for labels to come, of one model version: published, not undone, not quarantined.
-- Fragments: key_columns, prediction (expression), pipeline (text literal), model_version (integer), after, until (instant
-- literals, over as_of), per_mille (share of the entities, 1 to 1000). Grain: one row per kept entity and generation.
SELECT {key_columns}, s.as_of, {prediction} AS prediction
FROM prescore.generations AS g
JOIN prescore.prediction_samples AS s USING (pipeline, generation_id)
WHERE g.pipeline = {pipeline} AND g.as_of > {after} AND g.as_of <= {until} AND g.undone_at IS NULL
  AND g.quarantined_at IS NULL AND s.model_version = {model_version}
  AND mod(jsonb_hash_extended(s.key, 1), 1000) + 999 < 2 * {per_mille}
