-- Create a place for the keys that a run has to account for, gone with the connection.
-- Fragments: key_definitions. Grain: no rows.
CREATE TEMPORARY TABLE expected_keys ({key_definitions})
