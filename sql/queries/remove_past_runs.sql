-- Remove the oldest runs that are past and not needed, with their checks, waivers, profiles, rejections and shards (by cascade), and
-- their publications with what was kept of those. In one statement: all of a run is there or nothing.
-- Parameters: pipeline (text), before (timestamptz, by prescore.clock()), needed (bigint[]: runs that stay), most (integer).
-- Grain: one row with what was removed.
WITH past AS MATERIALIZED (
    SELECT r.run_id
    FROM prescore.runs AS r
    WHERE r.pipeline = :pipeline AND r.clock_at < :before AND r.status <> 'running'
      AND r.run_id NOT IN (SELECT unnest(CAST(:needed AS bigint[])))
    ORDER BY r.run_id
    LIMIT :most
),
publications AS (
    DELETE FROM prescore.generations AS g USING past WHERE g.run_id = past.run_id RETURNING g.generation_id
),
samples AS (
    DELETE FROM prescore.prediction_samples AS s USING publications AS p
    WHERE s.pipeline = :pipeline AND s.generation_id = p.generation_id RETURNING 1
),
readings AS (
    DELETE FROM prescore.dataset_readings AS d USING publications AS p
    WHERE d.pipeline = :pipeline AND d.generation_id = p.generation_id RETURNING 1
),
listings AS (
    DELETE FROM prescore.archives AS a USING publications AS p
    WHERE a.pipeline = :pipeline AND a.generation_id = p.generation_id RETURNING 1
),
released AS (
    DELETE FROM prescore.quarantines AS q USING publications AS p WHERE q.generation_id = p.generation_id RETURNING 1
),
removed AS (
    DELETE FROM prescore.runs AS r USING past WHERE r.run_id = past.run_id RETURNING 1
)
SELECT (SELECT count(*) FROM removed) AS runs, (SELECT count(*) FROM publications) AS publications,
       (SELECT count(*) FROM samples) AS samples, (SELECT count(*) FROM listings) AS listings
