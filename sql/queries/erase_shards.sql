-- Remove shards that a key is the end of, and those that a dead run left: their ledger counts an entity that is gone.
-- Parameters: pipeline, first (text: the first column of the key). Grain: one row per shard.
DELETE FROM prescore.shards AS s
WHERE s.pipeline = :pipeline AND (:first IN (s.lower, s.upper) OR s.storage_id = (
    SELECT t.storage_id FROM prescore.storages AS t WHERE t.pipeline = :pipeline AND t.role = 'next'))
