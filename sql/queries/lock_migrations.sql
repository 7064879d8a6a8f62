-- Let one migrator at a time through, until the end of its transaction.
-- Parameters: none. Grain: one row.
SELECT pg_advisory_xact_lock(hashtextextended('prescore migrations', 0))
