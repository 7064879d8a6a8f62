-- Read how late each schedule is.
-- Parameters: none. Grain: one row per pipeline and mode that has a schedule; late in seconds, 0 while its tick is to come.
SELECT s.pipeline, s.mode, extract(epoch FROM s.late)::double precision AS late
FROM prescore.schedule_health AS s
ORDER BY s.pipeline, s.mode
