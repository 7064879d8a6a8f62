-- Create a place for keys of another server, gone with the transaction.
-- Fragments: table, key_definitions. Grain: no rows.
CREATE TEMPORARY TABLE {table} ({key_definitions}) ON COMMIT DROP
