-- Add the fingerprint to the rows of a pipeline, in all storages. Rows that are there have none: they count as moved.
-- Fragments: rows (table), fingerprint (column). Grain: no rows.
ALTER TABLE {rows} ADD COLUMN {fingerprint} bigint
