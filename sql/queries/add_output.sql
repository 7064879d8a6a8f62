-- Add an output to a table of a pipeline, in all storages at once; no row is written, all have NULL there.
-- Fragments: table, column (quoted), type. Grain: no rows.
ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column} {type}
