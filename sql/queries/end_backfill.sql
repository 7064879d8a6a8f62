-- Write down that an attempt at a past instant did not succeed, even if it was done: then what was written was found to be wrong.
-- Parameters: generation_id, status, message (text). Grain: one row, or none when that is known.
UPDATE prescore.backfills SET status = :status, message = :message, ended_at = clock_timestamp()
WHERE generation_id = :generation_id AND status IN ('running', 'done')
