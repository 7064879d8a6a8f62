-- Find the erasure that keeps an entity out.
-- Parameters: pipeline (text), digest (bytea). Grain: one row, or none.
SELECT erasure_id, digest, status, receipt, begun_at, begun_by
FROM prescore.erasures WHERE pipeline = :pipeline AND digest = :digest AND released_at IS NULL
