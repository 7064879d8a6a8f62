-- Let an entity in again.
-- Parameters: pipeline, os_user (text), digest (bytea). Grain: one row, or none when it was not kept out.
UPDATE prescore.erasures
SET released_at = clock_timestamp(), released_by = session_user, released_os_user = :os_user
WHERE pipeline = :pipeline AND digest = :digest AND released_at IS NULL
RETURNING erasure_id
