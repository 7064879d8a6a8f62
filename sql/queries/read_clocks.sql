-- Read the clock that freshness is judged at, and the real one at the same instant.
-- Parameters: none. Grain: one row.
SELECT prescore.clock() AS now, statement_timestamp() AS real_now
