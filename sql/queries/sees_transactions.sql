-- Say whether this role may see when the transactions of others started, and what a standby does when its replay has to wait.
-- Parameters: none. Grain: one row; delay is as SHOW writes it (30s; -1 waits for ever).
SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees,
       pg_is_in_recovery() AS standby,
       current_setting('hot_standby_feedback')::boolean AS feedback,
       current_setting('max_standby_streaming_delay') AS delay
