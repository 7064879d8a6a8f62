-- Note which columns the objects of a pipeline were made for.
-- Parameters: pipeline (text), key_columns, key_types, output_columns, output_types (text[]). Grain: one row.
UPDATE prescore.pipelines
SET key_columns = :key_columns, key_types = :key_types, output_columns = :output_columns, output_types = :output_types
WHERE pipeline = :pipeline
