-- Say whether this role may see when the transactions of others started.
-- Parameters: none. Grain: one row.
SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees
