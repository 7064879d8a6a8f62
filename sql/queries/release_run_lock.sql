-- Give back the lock of a run at once; closing the connection would do so a moment later.
-- Parameters: pipeline (text). Grain: one row.
SELECT pg_advisory_unlock(hashtextextended('prescore run ' || CAST(:pipeline AS text), 0)) AS released
