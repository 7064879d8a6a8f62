-- Take the lock of a pipeline's runs, waiting up to lock_timeout: a prescore from before there was a gate knows no other.
-- Parameters: pipeline (text). Grain: one row.
SELECT pg_advisory_lock(hashtextextended('prescore run ' || CAST(:pipeline AS text), 0))
