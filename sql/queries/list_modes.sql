-- List the modes of some runs.
-- Parameters: run_ids (bigint[]). Grain: one row per run.
SELECT run_id, mode FROM prescore.runs WHERE run_id = ANY (CAST(:run_ids AS bigint[]))
