-- Mark a publication as quarantined, so that it serves as a baseline no more; or take the mark back.
-- Parameters: generation_id, is_bad (boolean). Grain: one row.
UPDATE prescore.generations SET quarantined_at = CASE WHEN :is_bad THEN clock_timestamp() END WHERE generation_id = :generation_id
