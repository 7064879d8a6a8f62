-- Store that a person waived what a check found; the role is that of the connection.
-- Parameters: run_id, check_id, subject, os_user, because (text), until (instant). Grain: one row.
INSERT INTO prescore.waivers (run_id, check_id, subject, first_run_id, os_user, because, until)
VALUES (:run_id, :check_id, :subject, :run_id, :os_user, :because, :until)
ON CONFLICT (run_id, check_id, subject) DO NOTHING
