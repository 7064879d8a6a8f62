-- Mark attempts at a past instant as crashed whose lock is held by the caller now: their connection is gone, and their rows with it.
-- Parameters: pipeline (text), as_of (instant). Grain: one row per dead attempt.
UPDATE prescore.backfills
SET status = 'crashed', ended_at = clock_timestamp(), message = 'Its connection died; the next attempt found out.'
WHERE pipeline = :pipeline AND as_of = :as_of AND status = 'running'
RETURNING generation_id
