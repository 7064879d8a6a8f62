-- Remove predictions that were kept for labels which can no longer arrive.
-- Parameters: pipeline (text), before (timestamptz, of as_of), most (integer). Grain: one row.
WITH removed AS (
    DELETE FROM prescore.prediction_samples AS s
    WHERE s.ctid = ANY (ARRAY(
        SELECT p.ctid FROM prescore.generations AS g
        JOIN prescore.prediction_samples AS p USING (pipeline, generation_id)
        WHERE g.pipeline = :pipeline AND g.as_of < :before
        LIMIT :most))
    RETURNING 1
)
SELECT count(*) AS samples FROM removed
