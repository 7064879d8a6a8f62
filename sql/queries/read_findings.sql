-- List everything that the checks of a run found, the gravest first, with who waived what.
-- Parameters: run_id (bigint). Grain: one row per check and subject.
SELECT c.run_id, c.check_id, c.code, c.class, c.subject, c.verdict, c.effective, c.waived, c.followups, c.observed,
       c.warn_limit, c.fail_limit, c.unit, c.n, c.warn_until, c.fail_until, c.reason, c.evidence ->> 'note' AS note,
       c.evidence, w.waived_by, w.os_user AS waived_os_user, w.because AS waived_because, w.until AS waived_until
FROM prescore.checks AS c
LEFT JOIN prescore.waivers AS w ON w.run_id = c.run_id AND w.check_id = c.check_id AND w.subject = c.subject
WHERE c.run_id = :run_id
ORDER BY array_position(ARRAY['fail', 'warn', 'pass', 'skipped'], c.effective),
         array_position(ARRAY['fail', 'unknown', 'warn', 'pass', 'skipped'], c.verdict), c.check_id, c.subject
