-- Say that a shard is finished, in the transaction of its rows.
-- Fragments: run_id, shard, rows, rejected (integer literals), counted (text literal). Grain: no rows.
UPDATE prescore.shards
SET state = 'finished', finished_at = clock_timestamp(), scored_by = {run_id}, rows = {rows}, rejected = {rejected}, counted = {counted}
WHERE run_id = {run_id} AND shard = {shard}
