-- Remove an entity from a storage.
-- Fragments: storage (table), key_matches (condition on r), key_hash (of r). Parameters: key_0, key_1, ... (text).
-- Grain: one row: how many, and the sum of their key hashes.
WITH erased AS (DELETE FROM {storage} AS r WHERE {key_matches} RETURNING {key_hash} AS hash)
SELECT count(*) AS rows, coalesce(sum(hash), 0) AS key_checksum FROM erased
