-- Read the keys that were brought from another server, in place of the query that they come from.
-- Fragments: table, key_names. Grain: one row per row of that query.
SELECT {key_names} FROM pg_temp.{table}
