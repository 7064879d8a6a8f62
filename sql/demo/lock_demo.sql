-- Keep a second demo away from the demo's database while this connection lives.
-- Parameters: none. Result: one row, whether the lock is ours.
SELECT pg_try_advisory_lock(hashtextextended('prescore demo', 0)) AS locked
