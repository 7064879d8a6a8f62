-- Count and fingerprint what a run wrote into a storage: the other side of the ledger.
-- Fragments: storage (table), key_hash (bigint: their sum is a numeric, and exact). Parameters: generation_id. Grain: one row.
SELECT count(*) AS rows,
       coalesce(sum({key_hash}), 0) AS key_checksum,
       count(*) FILTER (WHERE rejected IS NOT NULL) AS rejected,
       min(as_of) AS oldest_as_of
FROM {storage} WHERE scored_in = :generation_id
