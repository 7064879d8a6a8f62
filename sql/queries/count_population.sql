-- Count the population and fingerprint its keys, in the run's snapshot.
-- Fragments: as_of (instant literal), entity_keys, entity_query, key_missing, key_hash (of p).
-- The checksum is a sum of 64-bit hashes, not an XOR: pairs of duplicates would cancel.
-- Grain: one row.
WITH run(as_of) AS NOT MATERIALIZED (SELECT {as_of})
SELECT count(*) AS population, coalesce(sum({key_hash}), 0)::text AS key_checksum,
       count(*) FILTER (WHERE {key_missing}) AS null_keys
FROM (SELECT {entity_keys} FROM (
{entity_query}
) AS entities) AS p
