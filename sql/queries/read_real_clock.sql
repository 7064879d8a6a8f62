-- Read the clock of the server itself, whatever prescore.clock() returns.
-- Parameters: none. Grain: one row.
SELECT clock_timestamp() AS now
