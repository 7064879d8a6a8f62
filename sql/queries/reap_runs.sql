-- Mark runs as crashed whose lock is held by the caller now: their connection is gone.
-- Parameters: pipeline (text). Grain: one row per dead run.
UPDATE prescore.runs
SET status = 'crashed', ended_at = clock_timestamp(), message = 'Its connection died; the next run found out.'
WHERE pipeline = :pipeline AND status = 'running'
RETURNING run_id
