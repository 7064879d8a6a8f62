-- Let PostgreSQL cancel every statement of this connection that takes longer.
-- Parameters: milliseconds (text). Grain: one row.
SELECT set_config('statement_timeout', CAST(:milliseconds AS text), false)
