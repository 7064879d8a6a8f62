-- Let autovacuum look after a table again.
-- Fragments: table. Grain: no rows.
ALTER TABLE {table} RESET (autovacuum_enabled)
