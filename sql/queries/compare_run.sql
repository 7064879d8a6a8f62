-- Compare a run at work with the ones before: how long it takes, how long the last 20 published ones of the mode took, and
-- how many died since the last that ended. Times by the real clock, in seconds.
-- Parameters: pipeline, mode (text), run_id (bigint). Grain: one row.
SELECT extract(epoch FROM clock_timestamp() - r.started_at)::double precision AS elapsed,
       usual.runs, usual.median, dead.died, dead.last_sign
FROM prescore.runs AS r
CROSS JOIN LATERAL (
    SELECT count(*) AS runs, percentile_cont(0.5) WITHIN GROUP (ORDER BY last.seconds) AS median
    FROM (SELECT extract(epoch FROM q.ended_at - q.started_at)::double precision AS seconds
          FROM prescore.runs AS q
          WHERE q.pipeline = :pipeline AND q.run_id < :run_id AND q.mode = :mode AND q.status = 'published'
          ORDER BY q.run_id DESC LIMIT 20) AS last
) AS usual
CROSS JOIN LATERAL (
    SELECT count(*) AS died, max(q.heartbeat_at) AS last_sign
    FROM prescore.runs AS q
    WHERE q.pipeline = :pipeline AND q.run_id < :run_id AND q.status = 'crashed'
      AND q.run_id > coalesce((SELECT max(e.run_id) FROM prescore.runs AS e
                               WHERE e.pipeline = :pipeline AND e.run_id < :run_id
                                 AND e.status NOT IN ('crashed', 'skipped', 'running')), 0)
) AS dead
WHERE r.run_id = :run_id
