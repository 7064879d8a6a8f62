-- Read the health of pipelines.
-- Parameters: pipeline (text, or NULL for all). Grain: one row per pipeline.
SELECT h.*,
       CASE a.status WHEN 'failed' THEN a.problem
                     WHEN 'owed' THEN 'the run that published it did not come to it.' END AS archive_problem,
       r.started_by AS last_run_started_by
FROM prescore.pipeline_health AS h
LEFT JOIN prescore.archives AS a ON a.pipeline = h.pipeline AND a.generation_id = h.generation_id
LEFT JOIN prescore.runs AS r ON r.run_id = h.last_run_id
WHERE CAST(:pipeline AS text) IS NULL OR h.pipeline = :pipeline
ORDER BY h.pipeline
