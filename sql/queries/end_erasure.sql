-- Write down what an erasure has removed where.
-- Parameters: erasure_id, receipt (text: JSON), finished (boolean: gone from everywhere). Grain: one row.
UPDATE prescore.erasures
SET receipt = CAST(:receipt AS jsonb), status = CASE WHEN :finished THEN 'finished' ELSE 'begun' END,
    finished_at = CASE WHEN :finished THEN clock_timestamp() END
WHERE erasure_id = :erasure_id
RETURNING finished_at
