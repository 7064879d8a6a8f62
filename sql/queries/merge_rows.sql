-- Put rescored rows into the storage that is served.
-- Fragments: current, staged (tables), columns, key_names, key_hash, assignments. Parameters: storage_id (of the target),
-- generation_id. Grain: one row: how many were new, and the sum of their key hashes.
WITH merged AS (
    INSERT INTO {current} (storage_id, {columns})
    SELECT :storage_id, {columns} FROM {staged} WHERE scored_in = :generation_id
    ON CONFLICT ({key_names}, storage_id) DO UPDATE SET {assignments}
    RETURNING (xmax = 0) AS inserted, {key_hash} AS hash
)
SELECT count(*) AS merged, count(*) FILTER (WHERE inserted) AS inserted,
       coalesce(sum(hash) FILTER (WHERE inserted), 0) AS key_checksum
FROM merged
