-- Give back every advisory lock of this connection; closing it would do so a moment later.
-- Parameters: none. Grain: one row.
SELECT pg_advisory_unlock_all()
