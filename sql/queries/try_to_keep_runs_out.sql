-- Keep runs from beginning while somebody migrates, unless one is at work.
-- Parameters: none. Grain: one row, false when one is.
SELECT pg_try_advisory_lock(hashtextextended('prescore gate', 0)) AS taken
