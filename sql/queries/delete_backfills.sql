-- Forget backfills of a pipeline that ended before an instant.
-- Parameters: pipeline (text), before (instant, by the real clock). Grain: one row per attempt: its generation, whether it was done.
DELETE FROM prescore.backfills WHERE pipeline = :pipeline AND ended_at < :before
RETURNING generation_id, status = 'done' AS done
