-- List what the checks of some runs found.
-- Parameters: run_ids (bigint[]). Grain: one row per run, check and subject, by run, the gravest first.
SELECT run_id, check_id, code, class, subject, verdict, effective, disposition, waived, followups, observed, warn_limit,
       fail_limit, unit, n, warn_until, fail_until, reason, evidence
FROM prescore.checks
WHERE run_id = ANY (:run_ids)
ORDER BY run_id, array_position(ARRAY['fail', 'unknown', 'warn', 'pass', 'skipped'], verdict), check_id, subject
