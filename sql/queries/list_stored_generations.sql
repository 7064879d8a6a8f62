-- List the publications whose rows a storage may still hold, the one that was served when what is past begins, and those that are
-- hidden, owed to the lake, or that a quarantine in force names.
-- Parameters: pipeline (text), before (timestamptz, by prescore.clock(): what is older is past). Grain: one row per publication.
WITH bases AS (
    SELECT s.storage_id, max(g.generation_id) AS base
    FROM prescore.storages AS s
    JOIN prescore.generations AS g ON g.pipeline = s.pipeline AND g.storage_id = s.storage_id AND g.mode = 'full'
                                  AND g.generation_id <= s.generation_id
    WHERE s.pipeline = :pipeline
    GROUP BY s.storage_id
),
before_that AS (
    SELECT max(g.generation_id) AS served
    FROM prescore.generations AS g
    JOIN prescore.runs AS r USING (run_id)
    WHERE g.pipeline = :pipeline AND g.undone_at IS NULL AND r.clock_at < :before
)
SELECT g.generation_id, g.run_id
FROM prescore.generations AS g
LEFT JOIN prescore.head AS h ON h.pipeline = g.pipeline
CROSS JOIN before_that AS b
WHERE g.pipeline = :pipeline
  AND (g.generation_id IN (h.generation_id, h.valid_since, b.served)
       OR g.generation_id = ANY (h.quarantined)
       OR EXISTS (SELECT FROM bases AS s WHERE s.storage_id = g.storage_id AND g.generation_id >= s.base)
       OR EXISTS (SELECT FROM prescore.storages AS s WHERE s.pipeline = g.pipeline AND s.generation_id = g.generation_id)
       OR EXISTS (SELECT FROM prescore.quarantines AS q
                  WHERE q.pipeline = g.pipeline AND q.released_at IS NULL
                    AND g.generation_id IN (q.generation_id, q.returned_to))
       OR g.generation_id = (SELECT max(f.generation_id) FROM prescore.generations AS f
                             WHERE f.pipeline = g.pipeline AND f.mode = 'full' AND f.generation_id <= b.served))
