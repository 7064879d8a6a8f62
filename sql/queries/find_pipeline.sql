-- Read what a pipeline's objects were made for.
-- Parameters: pipeline (text). Grain: one row, or none for a pipeline that never ran.
SELECT key_columns, key_types, output_columns, output_types, views_digest FROM prescore.pipelines WHERE pipeline = :pipeline
