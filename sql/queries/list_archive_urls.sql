-- List where copies of a pipeline's publications may be.
-- Parameters: pipeline (text). Grain: one row per place.
SELECT DISTINCT url FROM prescore.archives WHERE pipeline = :pipeline ORDER BY url
