-- Find the earliest instant that a model version predicted for.
-- Fragments: pipeline (text literal), model_version (integer). Grain: one row.
SELECT min(as_of) AS as_of
FROM prescore.generations
WHERE pipeline = {pipeline} AND model_version = {model_version} AND undone_at IS NULL
