-- Mark the lineage that a rollback left: its storage is the next to be cleared.
-- Parameters: pipeline (text). Grain: one row, or none where it is not followed.
UPDATE prescore.lineages AS l SET undone = true
FROM prescore.storages AS s
WHERE l.pipeline = :pipeline AND s.pipeline = l.pipeline AND s.storage_id = l.storage_id AND s.role = 'next'
