-- List the schedules that pipelines promised to keep.
-- Parameters: pipeline (text, or NULL for all). Grain: one row per pipeline and mode.
SELECT pipeline, mode, crons, timezone, grace, next_tick
FROM prescore.schedules
WHERE CAST(:pipeline AS text) IS NULL OR pipeline = :pipeline
ORDER BY pipeline, mode
