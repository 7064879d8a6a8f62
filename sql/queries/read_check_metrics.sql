-- Count the checks of the last run of each pipeline that was judged: published, held or aborted.
-- Parameters: none. Grain: one row per pipeline, class, verdict, effect and disposition that occurred.
SELECT j.pipeline, k.class AS check_class, k.verdict, k.effective, coalesce(k.disposition, 'publish') AS disposition, count(*) AS checks
FROM prescore.pipeline_health AS j
CROSS JOIN LATERAL (
    SELECT r.run_id
    FROM prescore.run_health AS r
    WHERE r.pipeline = j.pipeline AND r.status IN ('published', 'held', 'aborted')
    ORDER BY r.run_id DESC LIMIT 1
) AS l
JOIN prescore.check_health AS k ON k.run_id = l.run_id
GROUP BY j.pipeline, k.class, k.verdict, k.effective, coalesce(k.disposition, 'publish')
ORDER BY j.pipeline
