-- Write down that what readers see from here on is not kept.
-- Parameters: pipeline (text). Grain: one row, or none.
UPDATE prescore.head_history SET seen_until = prescore.clock() WHERE pipeline = :pipeline AND seen_until IS NULL
