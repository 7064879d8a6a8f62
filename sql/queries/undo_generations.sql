-- Mark the generations that a rollback undoes.
-- Parameters: pipeline (text), generation_id (the one returned to). Grain: one row per undone generation, oldest first.
WITH undone AS (
    UPDATE prescore.generations SET undone_at = clock_timestamp()
    WHERE pipeline = :pipeline AND generation_id > :generation_id AND undone_at IS NULL
    RETURNING generation_id
)
SELECT generation_id FROM undone ORDER BY generation_id
