-- Find the version that an alias of a model names, now or at an instant of the past.
-- Parameters: model, alias, at (instant, or NULL for now). Grain: one row, or none.
SELECT m.model, m.version, m.digest, m.created_at, m.created_by, m.source, m.train_data_until, m.logic_digest, m.metrics,
       m.environment, m.signature, m.probes, m.trusted_pickle, m.size_bytes,
       m.trusted_by, m.trusted_os_user, m.trusted_at, m.trusted_sha256
FROM prescore.aliases AS a
JOIN prescore.models AS m USING (model, version)
WHERE a.model = :model
  AND a.alias = :alias
  AND CASE WHEN CAST(:at AS timestamptz) IS NULL THEN a.until IS NULL
           ELSE a.since <= CAST(:at AS timestamptz) AND coalesce(a.until > CAST(:at AS timestamptz), true) END
ORDER BY a.since DESC
LIMIT 1
