-- List runs at work that gave no sign of life for five minutes, by the real clock.
-- Parameters: none. Grain: one row per run.
SELECT r.run_id, r.pipeline, r.host, r.process_id, r.heartbeat_at AS since
FROM prescore.runs AS r
WHERE r.status = 'running' AND r.heartbeat_at <= statement_timestamp() - interval '5 minutes'
ORDER BY r.run_id
