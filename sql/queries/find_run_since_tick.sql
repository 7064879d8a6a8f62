-- Find a run that has done what a tick asked for: it began since, looked at the data from since, and came to a judgement, or
-- a person ended it. A few minutes are for a standby that is behind.
-- Parameters: pipeline, mode (text), due_at (instant, by the real clock). Grain: one row or none.
SELECT run_id, status, started_at
FROM prescore.runs
WHERE pipeline = :pipeline AND started_at >= :due_at AND (mode = 'full' OR :mode = 'incremental') AND trigger <> 'backfill'
  AND (status IN ('published', 'held', 'aborted') AND as_of >= clock_at - interval '5 minutes'
       OR status = 'cancelled' AND cancel_asked_at IS NOT NULL)
ORDER BY run_id DESC
LIMIT 1
