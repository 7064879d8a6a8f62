-- Enter the next version of a model; the caller holds lock_model.
-- Parameters: model, digest (SHA-256, 64 hex digits), source, train_data_until, logic_digest, metrics, environment, signature,
-- probes (JSON), trusted_pickle, trusted_os_user and trusted_sha256 (text; NULL unless trusted), size_bytes (bytes). Grain: one row, the new version.
INSERT INTO prescore.models (model, version, digest, source, train_data_until, logic_digest, metrics, environment,
                             signature, probes, trusted_pickle, size_bytes, trusted_by, trusted_os_user, trusted_at,
                             trusted_sha256)
SELECT :model, coalesce(max(version), 0) + 1, :digest, :source, :train_data_until, :logic_digest,
       CAST(:metrics AS jsonb), CAST(:environment AS jsonb), CAST(:signature AS jsonb), CAST(:probes AS jsonb),
       :trusted_pickle, :size_bytes, CASE WHEN :trusted_pickle THEN session_user END, :trusted_os_user,
       CASE WHEN :trusted_pickle THEN clock_timestamp() END, :trusted_sha256
FROM prescore.models
WHERE model = :model
RETURNING model, version, digest, created_at, created_by, source, train_data_until, logic_digest, metrics, environment,
          signature, probes, trusted_pickle, size_bytes, trusted_by, trusted_os_user, trusted_at, trusted_sha256
