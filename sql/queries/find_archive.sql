-- Find what became of the copy of a generation.
-- Parameters: pipeline (text), generation_id. Grain: one row, or none.
SELECT url, status, problem, amends, rows, files, bytes, noted_at
FROM prescore.archives
WHERE pipeline = :pipeline AND generation_id = :generation_id
