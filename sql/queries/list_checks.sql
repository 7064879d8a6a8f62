-- List what the checks of a run found, the gravest first.
-- Parameters: run_id (bigint). Grain: one row per check and subject.
SELECT check_id, code, subject, verdict, effective, waived, followups, reason, evidence ->> 'note' AS note
FROM prescore.checks
WHERE run_id = :run_id
ORDER BY array_position(ARRAY['fail', 'warn', 'pass', 'skipped'], effective),
         array_position(ARRAY['fail', 'unknown', 'warn', 'pass', 'skipped'], verdict), check_id, subject
