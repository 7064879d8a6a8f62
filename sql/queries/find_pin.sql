-- Say whether a rollback pinned a pipeline.
-- Parameters: pipeline (text). Grain: one row, or none for a pipeline that never ran.
SELECT pinned_at, pinned_because FROM prescore.pipelines WHERE pipeline = :pipeline
