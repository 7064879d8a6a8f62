-- Keep migrations out for as long as this connection works for a run, without waiting.
-- Parameters: none. Grain: one row, false while somebody migrates, or waits to: runs that begin then would never let them through.
SELECT pg_try_advisory_lock_shared(hashtextextended('prescore gate', 0)) AS taken
