-- Remove the lists of rejected entities of runs that are past, but for those of what a storage still holds.
-- Parameters: pipeline (text), before (timestamptz, by prescore.clock()), needed (bigint[]: runs whose lists stay), most (integer).
-- Grain: one row.
WITH removed AS (
    DELETE FROM prescore.rejections AS x
    WHERE x.ctid = ANY (ARRAY(
        SELECT p.ctid FROM prescore.runs AS r
        JOIN prescore.rejections AS p USING (run_id)
        WHERE r.pipeline = :pipeline AND r.clock_at < :before AND r.status <> 'running'
          AND r.run_id NOT IN (SELECT unnest(CAST(:needed AS bigint[])))
        LIMIT :most))
    RETURNING 1
)
SELECT count(*) AS rejections FROM removed
