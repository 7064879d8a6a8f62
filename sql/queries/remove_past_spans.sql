-- Forget what readers saw before an instant.
-- Parameters: pipeline (text), before (instant). Grain: one row per stretch of time.
DELETE FROM prescore.head_history WHERE pipeline = :pipeline AND seen_until <= :before
