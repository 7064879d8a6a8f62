-- Let statements of this connection, or of its open transaction, wait so long for locks and no longer.
-- Parameters: milliseconds (text; 0 waits for ever), locally (boolean: only until the end of the transaction). Grain: one row.
SELECT set_config('lock_timeout', CAST(:milliseconds AS text), CAST(:locally AS boolean))
