-- Store what a check found; the same check of the same run replaces its finding.
-- Parameters: one per column. Grain: one row.
INSERT INTO prescore.checks (run_id, pipeline, check_id, code, class, subject, verdict, observed, warn_limit, fail_limit, unit, n,
                             warn_until, fail_until, reason, effective, disposition, followups, waived, evidence)
VALUES (:run_id, :pipeline, :check_id, :code, :class, :subject, :verdict, :observed, :warn_limit, :fail_limit, :unit, :n,
        :warn_until, :fail_until, :reason, :effective, :disposition, :followups, :waived, CAST(:evidence AS jsonb))
ON CONFLICT (run_id, check_id, subject) DO UPDATE
SET verdict = excluded.verdict, observed = excluded.observed, warn_limit = excluded.warn_limit, fail_limit = excluded.fail_limit,
    n = excluded.n, warn_until = excluded.warn_until, fail_until = excluded.fail_until, reason = excluded.reason,
    effective = excluded.effective, disposition = excluded.disposition, followups = excluded.followups,
    waived = excluded.waived, evidence = excluded.evidence, checked_at = excluded.checked_at
