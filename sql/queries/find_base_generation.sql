-- Find the full run that filled a storage, from the last generation that was published into it.
-- Parameters: pipeline (text), storage_id, generation_id (the last one). Grain: one row.
SELECT generation_id, quarantined_at
FROM prescore.generations
WHERE pipeline = :pipeline AND storage_id = :storage_id AND mode = 'full' AND generation_id <= :generation_id
ORDER BY generation_id DESC LIMIT 1
