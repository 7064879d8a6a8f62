-- Take the lock that lets one run of a pipeline through, without waiting; it lives as long as the connection.
-- Parameters: pipeline (text). Grain: one row, true when the lock was free.
SELECT pg_try_advisory_lock(hashtextextended('prescore run ' || CAST(:pipeline AS text), 0)) AS taken
