-- Say who begins a shard, and on which backend it will be written; committed at once, so that others see it.
-- Waits for another worker's transaction on it. Fragments: run_id, shard (integer literals), owner (text literal).
-- Grain: one row, or none when the shard is finished or is not there.
UPDATE prescore.shards
SET attempt = attempt + 1, owner = {owner}, started_at = clock_timestamp(), backend_pid = pg_backend_pid(),
    backend_start = (SELECT backend_start FROM pg_catalog.pg_stat_activity WHERE pid = pg_backend_pid())
WHERE run_id = {run_id} AND shard = {shard} AND state = 'open'
RETURNING attempt
