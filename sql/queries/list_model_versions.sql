-- List the versions of one model, or of all, newest first, with the aliases that name them now.
-- Parameters: model (NULL for all). Grain: one row per version; aliases is an array of text.
SELECT m.model, m.version, m.digest, m.created_at, m.created_by, m.source, m.train_data_until, m.logic_digest, m.metrics,
       m.environment, m.signature, m.probes, m.trusted_pickle, m.size_bytes,
       m.trusted_by, m.trusted_os_user, m.trusted_at, m.trusted_sha256,
       ARRAY(SELECT a.alias
             FROM prescore.aliases AS a
             WHERE a.model = m.model AND a.version = m.version AND a.until IS NULL
             ORDER BY a.alias) AS aliases
FROM prescore.models AS m
WHERE CAST(:model AS text) IS NULL OR m.model = :model
ORDER BY m.model, m.version DESC
