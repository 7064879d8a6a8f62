-- Keep a waiver in force for a run that amends rows which rest on it.
-- Parameters: run_id, check_id, subject (of the run that amends), origin (run in which a person waived), origin_subject.
-- Grain: one row, or none.
INSERT INTO prescore.waivers (run_id, check_id, subject, first_run_id, waived_by, os_user, because, waived_at, until)
SELECT :run_id, :check_id, :subject, w.first_run_id, w.waived_by, w.os_user, w.because, w.waived_at, w.until
FROM prescore.waivers AS w
WHERE w.run_id = :origin AND w.check_id = :check_id AND w.subject = :origin_subject
ON CONFLICT (run_id, check_id, subject) DO NOTHING
