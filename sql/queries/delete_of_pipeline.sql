-- Remove the rows that a control table has of a pipeline.
-- Fragments: table. Parameters: pipeline (text). Grain: no rows.
DELETE FROM {table} WHERE pipeline = :pipeline
