-- Count and fingerprint what a run wrote into a storage: the other side of the ledger.
-- Fragments: storage (table), key_names. Parameters: generation_id. Grain: one row.
SELECT count(*) AS rows,
       coalesce(sum(hash_record_extended(ROW({key_names}), 0)::numeric), 0) AS key_checksum,
       count(*) FILTER (WHERE rejected IS NOT NULL) AS rejected
FROM {storage} WHERE scored_in = :generation_id
