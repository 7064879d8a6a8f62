-- List keys that are known already, where a query for them is expected.
-- Fragments: key_arrays (array literals), key_names. Grain: one row per key.
SELECT {key_names} FROM unnest({key_arrays}) AS known({key_names})
