-- Keep a connection that has to live as long as its run: no idle or statement timeout of role or database ends it.
-- Parameters: none. Grain: one row.
SELECT set_config('idle_session_timeout', '0', false),
       set_config('idle_in_transaction_session_timeout', '0', false),
       set_config('statement_timeout', '0', false)
