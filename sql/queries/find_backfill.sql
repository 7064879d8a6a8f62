-- Find what a past instant was scored as.
-- Parameters: pipeline (text), as_of (instant). Grain: one row, or none when it was not.
SELECT generation_id, model, model_version, logic_digest, population, rejected
FROM prescore.backfills WHERE pipeline = :pipeline AND as_of = :as_of AND status = 'done'
