-- Make sure that an attempt at a past instant has not been found dead before it wrote down that it is done.
-- Fragments: run_id (literal: its generation). Grain: one row, or none.
SELECT generation_id FROM prescore.backfills WHERE generation_id = {run_id} AND status = 'done'
