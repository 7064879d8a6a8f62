-- Remove entities that left the population from the storage that is served.
-- Fragments: current (table), key_arrays (array literals), key_names, key_matches, key_hash. Grain: one row: how many, and the sum
-- of their key hashes.
WITH deleted AS (
    DELETE FROM {current} AS r USING unnest({key_arrays}) AS gone({key_names}) WHERE {key_matches}
    RETURNING {key_hash} AS hash
)
SELECT count(*) AS deleted, coalesce(sum(hash), 0) AS key_checksum FROM deleted
