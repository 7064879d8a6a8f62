-- Remove an entity from a table that holds keys as documents.
-- Fragments: table, key (jsonb). Parameters: pipeline (text), key_0, key_1, ... (text). Grain: one row per removed row.
DELETE FROM {table} WHERE pipeline = :pipeline AND key = {key}
