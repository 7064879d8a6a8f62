-- Find the last run that came to a judgement, the run that made what is served, and the contract of the pipeline.
-- Parameters: pipeline (text). Grain: one row.
SELECT p.contract_text,
       (SELECT r.run_id FROM prescore.runs AS r
        WHERE r.pipeline = p.pipeline AND r.status IN ('published', 'held', 'aborted')
        ORDER BY r.run_id DESC LIMIT 1) AS judged_run_id,
       (SELECT g.run_id FROM prescore.head AS h JOIN prescore.generations AS g ON g.generation_id = h.generation_id
        WHERE h.pipeline = p.pipeline) AS served_run_id
FROM prescore.pipelines AS p
WHERE p.pipeline = :pipeline
