-- Mark the storages after a rollback: previous becomes current, what was current will be cleared, and nothing is previous.
-- Parameters: pipeline (text). Grain: three rows.
UPDATE prescore.storages
SET role = CASE role WHEN 'previous' THEN 'current' WHEN 'current' THEN 'next' ELSE 'previous' END,
    generation_id = CASE role WHEN 'previous' THEN generation_id END,
    retired_at = CASE role WHEN 'current' THEN clock_timestamp() WHEN 'previous' THEN NULL ELSE retired_at END,
    retired_xid = CASE role WHEN 'current' THEN pg_current_xact_id() WHEN 'previous' THEN NULL ELSE retired_xid END
WHERE pipeline = :pipeline
