-- Say which backend serves this connection.
-- Parameters: none. Grain: one row.
SELECT pg_backend_pid() AS pid
