-- Recall what alarms about a publication: what was waived, and what its guards and gauges found.
-- Parameters: generation_id (bigint). Grain: one row per check and subject.
SELECT c.run_id, c.check_id, c.code, c.class AS class_, c.subject, c.effective, c.waived, c.followups, c.reason, c.evidence,
       coalesce(c.evidence ->> 'note', '') AS note, w.until
FROM prescore.generations AS g
JOIN prescore.checks AS c ON c.run_id = g.run_id
LEFT JOIN prescore.waivers AS w ON w.run_id = c.run_id AND w.check_id = c.check_id AND w.subject = c.subject
WHERE g.generation_id = :generation_id AND c.effective IN ('warn', 'fail') AND (c.waived OR c.class <> 'clock')
