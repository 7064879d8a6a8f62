-- Read what is known of a pipeline, whatever became of its folder.
-- Parameters: pipeline (text). Grain: one row, or none where it never ran.
SELECT p.pipeline, p.model, p.alias, p.contract_text, h.generation_id, h.rows,
       (SELECT count(*) FROM prescore.models AS m WHERE m.model = p.model) AS versions,
       ARRAY(SELECT o.pipeline FROM prescore.pipelines AS o WHERE o.model = p.model AND o.pipeline <> p.pipeline ORDER BY 1) AS sharing
FROM prescore.pipelines AS p
LEFT JOIN prescore.head AS h ON h.pipeline = p.pipeline
WHERE p.pipeline = :pipeline
