-- List the shards that a run which did not end well left in a storage, and what they were scored with.
-- Parameters: pipeline (text), storage_id. Grain: one row per shard, in their order.
SELECT s.run_id, s.shard, s.lower, s.upper, s.keys, s.key_checksum, s.as_of, s.watermark, s.data_as_of, s.state, s.rows, s.counted,
       r.status, r.generation_id, r.model, r.model_version, r.logic_digest
FROM prescore.shards AS s
JOIN prescore.runs AS r USING (run_id)
WHERE s.pipeline = :pipeline AND s.storage_id = :storage_id
  AND s.run_id = (SELECT max(l.run_id) FROM prescore.shards AS l WHERE l.pipeline = :pipeline AND l.storage_id = :storage_id)
ORDER BY s.shard
