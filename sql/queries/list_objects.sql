-- List the pipelines that have objects, and what these were made for.
-- Grain: one row per pipeline.
SELECT pipeline, key_columns, key_types, output_columns, output_types
FROM prescore.pipelines WHERE key_columns IS NOT NULL ORDER BY pipeline
