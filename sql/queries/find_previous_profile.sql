-- Find the last published run of a mode with the fingerprints of its features, and the ages of its sources.
-- Parameters: pipeline (text), mode (full or incremental), before (timestamptz, of as_of). Grain: at most one row; columns
-- is an array of [name, rows, digest], ages an object of seconds before as_of by source.
SELECT r.run_id,
       r.as_of,
       (SELECT jsonb_agg(jsonb_build_array(p.name, p.rows, p.digest::text))
        FROM prescore.profiles AS p
        WHERE p.run_id = r.run_id AND p.kind = 'feature') AS columns,
       (SELECT jsonb_object_agg(c.subject, c.observed)
        FROM prescore.checks AS c
        WHERE c.run_id = r.run_id AND c.check_id = 'source.age' AND c.observed IS NOT NULL) AS ages
FROM prescore.runs AS r
WHERE r.pipeline = :pipeline
  AND r.mode = :mode
  AND r.status = 'published'
  AND r.as_of < :before
  AND EXISTS (SELECT FROM prescore.profiles AS p WHERE p.run_id = r.run_id AND p.kind = 'feature')
ORDER BY r.run_id DESC
LIMIT 1
