-- Remove an output from a table of a pipeline, in all storages at once; no row is written.
-- Fragments: table, column (quoted). Grain: no rows.
ALTER TABLE {table} DROP COLUMN IF EXISTS {column}
