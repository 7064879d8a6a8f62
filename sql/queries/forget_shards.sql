-- Forget the shards of a storage whose rows go, all but those that belong to a run; in the transaction in which they go.
-- Parameters: pipeline (text), storage_id, run_id (or NULL). Grain: one row per shard.
DELETE FROM prescore.shards
WHERE pipeline = :pipeline AND storage_id = :storage_id AND run_id IS DISTINCT FROM CAST(:run_id AS bigint)
