-- List whom a pipeline keeps out: salted digests of keys.
-- Parameters: pipeline (text). Grain: one row per forgotten entity.
SELECT salt, digest FROM prescore.erasures WHERE pipeline = :pipeline AND released_at IS NULL ORDER BY digest
