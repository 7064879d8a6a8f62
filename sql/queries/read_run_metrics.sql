-- Count the runs of each pipeline that began in the last 24 hours by the real clock.
-- Parameters: none. Grain: one row per pipeline and status that occurred.
SELECT r.pipeline, r.status, count(*) AS runs
FROM prescore.run_health AS r
WHERE r.started_at > clock_timestamp() - interval '24 hours'
GROUP BY r.pipeline, r.status
ORDER BY r.pipeline, r.status
