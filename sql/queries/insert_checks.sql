-- Store what checks found; the same check of the same run replaces its finding.
-- Parameters: findings (text of a JSON array with an object per finding, a name per column; what is no finite number as text).
-- Grain: one row per finding, each with another check_id and subject.
INSERT INTO prescore.checks (run_id, pipeline, check_id, code, class, subject, verdict, observed, warn_limit, fail_limit, unit, n,
                             warn_until, fail_until, reason, effective, disposition, followups, waived, evidence)
SELECT f.run_id, f.pipeline, f.check_id, f.code, f.class, f.subject, f.verdict, f.observed, f.warn_limit, f.fail_limit, f.unit,
       f.n, f.warn_until, f.fail_until, f.reason, f.effective, f.disposition, f.followups, f.waived, f.evidence
FROM jsonb_to_recordset(CAST(:findings AS jsonb)) AS f (
    run_id bigint, pipeline text, check_id text, code text, class text, subject text, verdict text, observed double precision,
    warn_limit double precision, fail_limit double precision, unit text, n bigint, warn_until timestamptz,
    fail_until timestamptz, reason text, effective text, disposition text, followups text[], waived boolean, evidence jsonb
)
ON CONFLICT (run_id, check_id, subject) DO UPDATE
SET verdict = excluded.verdict, observed = excluded.observed, warn_limit = excluded.warn_limit, fail_limit = excluded.fail_limit,
    n = excluded.n, warn_until = excluded.warn_until, fail_until = excluded.fail_until, reason = excluded.reason,
    effective = excluded.effective, disposition = excluded.disposition, followups = excluded.followups,
    waived = excluded.waived, evidence = excluded.evidence, checked_at = excluded.checked_at
