-- Add an output to a table of a pipeline.
-- Fragments: table, column (quoted), type. Grain: no rows.
ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column} {type}
