-- Forget a schedule that is no longer declared.
-- Parameters: pipeline, mode (text). Grain: one row or none.
DELETE FROM prescore.schedules WHERE pipeline = :pipeline AND mode = :mode
