-- Keep a connection that has to live as long as its run: no idle, statement or transaction timeout of role or database ends it
-- before its run has had all its time; after that the server itself ends what a process that is stuck leaves idle. And no
-- longer than its run: a server that works on a statement notices within seconds that the process is gone, and frees the
-- lock, where it can look at its socket meanwhile (others refuse the setting).
-- Parameters: idle_ms (text: milliseconds). Grain: one row.
SELECT set_config('idle_session_timeout', :idle_ms, false),
       set_config('idle_in_transaction_session_timeout', :idle_ms, false),
       set_config('statement_timeout', '0', false),
       CASE WHEN current_setting('transaction_timeout', true) IS NOT NULL
            THEN set_config('transaction_timeout', '0', false) END,
       CASE WHEN version() LIKE '%linux%' THEN set_config('client_connection_check_interval', '2s', false) END
