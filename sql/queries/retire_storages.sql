-- Mark the storages after a full run: next becomes current, current previous, previous next.
-- Parameters: pipeline (text), generation_id; oldest_as_of and rejected of what next holds. Grain: three rows.
UPDATE prescore.storages
SET role = CASE role WHEN 'next' THEN 'current' WHEN 'current' THEN 'previous' ELSE 'next' END,
    generation_id = CASE role WHEN 'next' THEN :generation_id WHEN 'previous' THEN NULL ELSE generation_id END,
    retired_at = CASE role WHEN 'current' THEN clock_timestamp() WHEN 'next' THEN NULL ELSE retired_at END,
    retired_xid = CASE role WHEN 'current' THEN pg_current_xact_id() WHEN 'next' THEN NULL ELSE retired_xid END,
    oldest_as_of = CASE role WHEN 'next' THEN CAST(:oldest_as_of AS timestamptz) ELSE oldest_as_of END,
    rejected = CASE role WHEN 'next' THEN CAST(:rejected AS bigint) ELSE rejected END
WHERE pipeline = :pipeline
