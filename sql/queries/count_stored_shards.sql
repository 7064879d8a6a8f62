-- Count and fingerprint the rows of a generation in each range of keys, as they lie in a storage.
-- Fragments: storage (table), first_key (column), key_hash (bigint), bounds (array literal), generation_id (integer literal).
-- Grain: one row per range that holds a row, numbered from 1.
SELECT width_bucket({first_key}, {bounds}) + 1 AS shard, count(*) AS keys,
       sum({key_hash})::text AS key_checksum
FROM {storage}
WHERE scored_in = {generation_id}
GROUP BY 1
