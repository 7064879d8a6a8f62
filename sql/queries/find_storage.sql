-- Find the storage of a pipeline that plays a role.
-- Parameters: pipeline, role (text). Grain: one row.
SELECT storage_id, generation_id, retired_xid::text AS retired_xid FROM prescore.storages WHERE pipeline = :pipeline AND role = :role
