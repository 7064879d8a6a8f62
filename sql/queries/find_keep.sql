-- Find out how long the history of a pipeline is kept.
-- Parameters: pipeline (text). Grain: one row, or none for a pipeline that never ran.
SELECT key_columns, history_keep, prescore.clock() - history_keep AS before, clock_timestamp() - history_keep AS made_before
FROM prescore.pipelines WHERE pipeline = :pipeline
