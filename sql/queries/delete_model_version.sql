-- Remove a model version, with its bundle.
-- Parameters: model (text), version (integer). Grain: one row, or none when there is none.
DELETE FROM prescore.models WHERE model = :model AND version = :version RETURNING size_bytes
