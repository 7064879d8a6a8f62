-- Keep an entity out from the end of the transaction on.
-- Parameters: pipeline, os_user (text), salt, digest (bytea). Grain: one row.
INSERT INTO prescore.erasures (pipeline, salt, digest, os_user) VALUES (:pipeline, :salt, :digest, :os_user)
RETURNING erasure_id, digest, status, receipt, begun_at, begun_by
