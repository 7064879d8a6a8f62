-- Find one version of a model.
-- Parameters: model, version. Grain: one row, or none.
SELECT model, version, digest, created_at, created_by, source, train_data_until, logic_digest, metrics, environment,
       signature, probes, trusted_pickle, size_bytes, trusted_by, trusted_os_user, trusted_at, trusted_sha256
FROM prescore.models
WHERE model = :model AND version = :version
