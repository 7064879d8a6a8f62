-- Count the rows of a storage that were scored in a generation.
-- Fragments: storage (table). Parameters: generation_id. Grain: one row.
SELECT count(*) AS rows FROM {storage} WHERE scored_in = :generation_id
