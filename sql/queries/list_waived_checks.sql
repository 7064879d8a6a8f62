-- List which checks a person waived in some runs; what an incremental run took over is left out.
-- Parameters: run_ids (bigint[]). Grain: one row per run, person and reason.
SELECT w.run_id, array_agg(DISTINCT w.check_id) AS check_ids, w.waived_by, w.os_user, w.because, w.until
FROM prescore.waivers AS w
WHERE w.run_id = ANY (CAST(:run_ids AS bigint[])) AND w.first_run_id = w.run_id
GROUP BY w.run_id, w.waived_by, w.os_user, w.because, w.until
