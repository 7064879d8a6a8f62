-- List the shards of a run.
-- Parameters: run_id. Grain: one row per shard, in their order.
SELECT shard, state, attempt, owner, started_at, finished_at, scored_by, keys, rows, rejected, counted
FROM prescore.shards WHERE run_id = :run_id ORDER BY shard
