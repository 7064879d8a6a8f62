-- List where the archives of a pipeline are.
-- Parameters: pipeline (text). Grain: one row per place.
SELECT url, count(*) AS generations, sum(bytes)::bigint AS bytes
FROM prescore.archives WHERE pipeline = :pipeline AND status = 'archived' GROUP BY url ORDER BY url
