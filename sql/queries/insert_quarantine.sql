-- Write down that a generation is bad.
-- Parameters: pipeline, generation_id, because, effect, returned_to (generation_id or NULL), os_user (text or NULL). Grain: one row.
INSERT INTO prescore.quarantines (pipeline, generation_id, because, effect, returned_to, os_user)
VALUES (:pipeline, :generation_id, :because, :effect, :returned_to, :os_user)
RETURNING quarantine_id, quarantined_at
