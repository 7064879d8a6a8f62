-- Find how many rows a publication had, and which model scored them.
-- Parameters: generation_id (bigint). Grain: one row.
SELECT rows, model, model_version FROM prescore.generations WHERE generation_id = :generation_id
