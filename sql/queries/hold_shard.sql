-- Hold a shard until the end of the transaction that writes its rows: no other worker can begin or finish it meanwhile.
-- Fragments: run_id, shard, attempt (integer literals). Grain: one row, or none when another worker took it over.
SELECT shard FROM prescore.shards WHERE run_id = {run_id} AND shard = {shard} AND attempt = {attempt} AND state = 'open' FOR UPDATE
