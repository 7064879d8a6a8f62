-- Count the rows that a control table has of a pipeline.
-- Fragments: table. Parameters: pipeline (text). Grain: one row.
SELECT count(*) AS rows FROM {table} WHERE pipeline = :pipeline
