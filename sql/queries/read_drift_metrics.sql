-- Read how far the columns of each pipeline have drifted, as its last run that compared them answered.
-- Parameters: none. Grain: one row per pipeline and check in PSI: the worst of its columns, and in multiples of its warning limit.
SELECT j.pipeline, l.check_id, max(k.observed) AS observed, max(k.observed / nullif(k.warn_limit, 0)) AS of_limit
FROM prescore.pipeline_health AS j
CROSS JOIN LATERAL (
    SELECT c.check_id, max(c.run_id) AS run_id
    FROM prescore.check_health AS c
    WHERE c.pipeline = j.pipeline AND c.unit = 'PSI' AND c.observed IS NOT NULL
      AND c.run_id > coalesce(j.last_run_id, 0) - 1000
    GROUP BY c.check_id
) AS l
JOIN prescore.check_health AS k ON k.run_id = l.run_id AND k.check_id = l.check_id AND k.observed IS NOT NULL
GROUP BY j.pipeline, l.check_id
ORDER BY j.pipeline, l.check_id
