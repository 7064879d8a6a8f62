-- Read a publication as it was published.
-- Parameters: generation_id (bigint). Grain: one row.
SELECT * FROM prescore.generations WHERE generation_id = :generation_id
