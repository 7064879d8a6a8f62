-- Count and fingerprint the keys of the population in each range, in the run's snapshot.
-- Fragments: as_of (instant literal), entity_keys, entity_query, first_key (column of p), key_hash (bigint), bounds (array literal).
-- Grain: one row per range that holds a key, numbered from 1.
WITH run(as_of) AS NOT MATERIALIZED (SELECT {as_of}),
prescore_population AS (SELECT {entity_keys} FROM (
{entity_query}
) AS entities)
SELECT width_bucket({first_key}, {bounds}) + 1 AS shard, count(*) AS keys,
       sum({key_hash})::text AS key_checksum
FROM prescore_population AS p
GROUP BY 1
