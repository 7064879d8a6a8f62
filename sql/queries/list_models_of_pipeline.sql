-- List the versions of every model that a pipeline scores with, or has scored with.
-- Parameters: pipeline (text). Grain: one row per version.
SELECT m.model, m.version
FROM prescore.models AS m
WHERE m.model IN (
    SELECT p.model FROM prescore.pipelines AS p WHERE p.pipeline = :pipeline
    UNION SELECT r.model FROM prescore.runs AS r WHERE r.pipeline = :pipeline)
ORDER BY m.model, m.version
