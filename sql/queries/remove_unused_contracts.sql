-- Remove contracts that no run was judged under any more, but for the one in use.
-- Parameters: pipeline (text), before (timestamptz, by the real clock: younger ones stay). Grain: one row.
WITH removed AS (
    DELETE FROM prescore.contracts AS c
    WHERE c.pipeline = :pipeline AND c.first_used_at < :before
      AND NOT EXISTS (SELECT FROM prescore.runs AS r WHERE r.pipeline = c.pipeline AND r.contract_digest = c.digest)
      AND NOT EXISTS (SELECT FROM prescore.pipelines AS p WHERE p.pipeline = c.pipeline AND p.contract_digest = c.digest)
    RETURNING 1
)
SELECT count(*) AS contracts FROM removed
