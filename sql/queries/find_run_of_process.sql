-- Find the run that a process began last, within a span of time.
-- Parameters: pipeline, host (text), process_id (integer), seconds (double precision: how long ago it may have begun).
-- Grain: one row, or none when it began no run.
SELECT run_id
FROM prescore.runs
WHERE pipeline = :pipeline AND host = :host AND process_id = :process_id
  AND started_at >= clock_timestamp() - make_interval(secs => :seconds)
ORDER BY run_id DESC
LIMIT 1
