-- Say what a server's clock is, whether it is a standby, and when the last transaction was committed that it has replayed.
-- Asked before a snapshot is taken, so that the snapshot is never older than the answer.
-- Parameters: none. Grain: one row; replayed is NULL on a primary that never was a standby, and before the first replay.
SELECT pg_backend_pid() AS pid,
       statement_timestamp() AS now,
       pg_is_in_recovery() AS standby,
       pg_last_xact_replay_timestamp() AS replayed
