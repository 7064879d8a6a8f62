-- Forget that others wrote into a storage, whose rows go.
-- Parameters: pipeline (text), storage_id. Grain: no rows.
DELETE FROM prescore.foreign_writes WHERE pipeline = :pipeline AND storage_id = :storage_id
