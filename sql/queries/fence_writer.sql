-- Make sure that a run has not been found dead, and let nobody find so until the end of the transaction: what it commits
-- is then there before the next run clears the storage.
-- Fragments: run_id (literal). Grain: one row, or none when a later run marked this one crashed.
SELECT run_id FROM prescore.runs WHERE run_id = {run_id} AND status = 'running' FOR SHARE
