-- List the pipelines that score with an alias of a model, and what they serve.
-- Parameters: model, alias (text). Grain: one row per pipeline that ran here; model_version is NULL while nothing of this
-- model is served.
SELECT p.pipeline, p.pinned_at IS NOT NULL AS pinned, h.model_version
FROM prescore.pipelines AS p
LEFT JOIN prescore.head AS h ON h.pipeline = p.pipeline AND h.model = p.model
WHERE p.model = :model AND p.alias = :alias
ORDER BY p.pipeline
