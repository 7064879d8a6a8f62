-- Find when what is past its retention was last removed, and the clock.
-- Parameters: pipeline (text). Grain: one row, or none for a pipeline that never ran.
SELECT past_removed_at, prescore.clock() AS now FROM prescore.pipelines WHERE pipeline = :pipeline
