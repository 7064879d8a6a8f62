-- Put a row of nobody into an empty storage, to be analysed and truncated in the same transaction.
-- Fragments: table, key_names, values (literals). Grain: one row.
INSERT INTO {table} ({key_names}, as_of, scored_in) VALUES ({values}, TIMESTAMPTZ '2000-01-01 00:00:00+00', 0)
