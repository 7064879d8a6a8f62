-- List the history of a model's aliases, oldest first.
-- Parameters: model. Grain: one row per stretch of time in which an alias named one version; until is NULL for the current.
SELECT model, alias, version, since, until, set_by, because, went_back
FROM prescore.aliases
WHERE model = :model
ORDER BY since, until NULLS LAST, alias
