-- Ask whether a storage holds rows that were scored in a generation.
-- Fragments: storage (table). Parameters: generation_id. Grain: one row.
SELECT EXISTS (SELECT FROM {storage} WHERE scored_in = :generation_id) AS found
