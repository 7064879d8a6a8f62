-- Let one process at a time make the objects of the backfills of a pipeline, until the end of the transaction.
-- Parameters: pipeline (text). Grain: one row.
SELECT pg_advisory_xact_lock(hashtextextended('prescore backfill objects ' || CAST(:pipeline AS text), 0))
