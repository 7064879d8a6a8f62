-- Drop an index; with a short lock_timeout, since it waits for readers of the table.
-- Fragments: index (quoted, with its schema). Grain: no rows.
DROP INDEX IF EXISTS {index}
