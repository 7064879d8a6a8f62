-- Take the lock that lets one process at a time score a past instant, without waiting; it lives as long as the connection.
-- Parameters: pipeline (text), as_of (instant). Grain: one row, true when the lock was free.
SELECT pg_try_advisory_lock(hashtextextended(
    'prescore backfill ' || CAST(:pipeline AS text) || ' ' || CAST(extract(epoch FROM CAST(:as_of AS timestamptz)) AS text), 0)) AS taken
