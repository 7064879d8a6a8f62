-- Take a quarantine back; its row stays.
-- Parameters: quarantine_id, because (text or NULL), os_user (text or NULL). Grain: one row.
UPDATE prescore.quarantines
SET released_at = clock_timestamp(), released_by = session_user, released_because = :because, released_os_user = :os_user
WHERE quarantine_id = :quarantine_id
