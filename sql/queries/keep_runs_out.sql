-- Keep runs from beginning while somebody migrates: waits for those at work, up to lock_timeout, and lets none begin meanwhile.
-- Parameters: none. Grain: one row.
SELECT pg_advisory_lock(hashtextextended('prescore gate', 0))
