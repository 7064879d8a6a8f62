-- List where copies of a pipeline's publications may be: under its name, and under those that it had before.
-- Parameters: pipeline (text). Grain: one row per place and name; generations are those that were copied there, or owed.
SELECT a.url, n.name, array_agg(a.generation_id) AS generations
FROM prescore.archives AS a
CROSS JOIN (SELECT CAST(:pipeline AS text) AS name
            UNION SELECT f.former FROM prescore.former_names AS f WHERE f.pipeline = :pipeline) AS n
WHERE a.pipeline = :pipeline
GROUP BY a.url, n.name
ORDER BY a.url, n.name
