-- Find the lineage whose rows a storage holds.
-- Parameters: pipeline (text), storage_id. Grain: one row, or none where it is not followed.
SELECT base, as_of, undone FROM prescore.lineages WHERE pipeline = :pipeline AND storage_id = :storage_id
