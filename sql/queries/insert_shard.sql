-- Write down a shard that has to be scored.
-- Parameters: run_id, shard, pipeline, storage_id, lower, upper (text or NULL), keys, key_checksum, as_of, watermark,
-- data_as_of. Grain: one row.
INSERT INTO prescore.shards (run_id, shard, pipeline, storage_id, lower, upper, keys, key_checksum, as_of, watermark, data_as_of)
VALUES (:run_id, :shard, :pipeline, :storage_id, :lower, :upper, :keys, :key_checksum, :as_of, :watermark, :data_as_of)
