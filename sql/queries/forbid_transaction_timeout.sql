-- Keep a session of the data path that lasts as long as a run: PostgreSQL 17 and newer can end long transactions, and older
-- ones do not know the setting, so that no connection can begin with it.
-- Parameters: none. Grain: one row, or none where the server does not know the setting.
SELECT set_config('transaction_timeout', '0', false) AS set
WHERE current_setting('transaction_timeout', true) IS NOT NULL
