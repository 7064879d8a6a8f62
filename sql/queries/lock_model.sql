-- Let one transaction at a time number versions and move aliases of a model, until it ends.
-- Parameters: model. Grain: one row.
SELECT pg_advisory_xact_lock(hashtextextended('prescore model ' || CAST(:model AS text), 0))
