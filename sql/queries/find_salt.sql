-- Find the salt that a pipeline's keys are hashed with.
-- Parameters: pipeline (text). Grain: one row, or none before its first erasure.
SELECT salt FROM prescore.erasures WHERE pipeline = :pipeline LIMIT 1
