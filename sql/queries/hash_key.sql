-- Hash a key as the ledger does.
-- Fragments: key (its values, by name), key_hash (of r). Parameters: key_0, key_1, ... (text). Grain: one row.
SELECT {key_hash} AS hash FROM (SELECT {key}) AS r
