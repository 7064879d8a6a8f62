-- Let one migrator after the other through; the lock lives as long as the connection.
-- Parameters: none. Grain: one row.
SELECT pg_advisory_lock(hashtextextended('prescore migrator', 0))
