-- List model versions that nothing uses or may return to: no alias names them, no publication that is kept was made by them, and no run.
-- Parameters: none. Grain: one row per version.
SELECT m.model, m.version, m.created_at, m.size_bytes
FROM prescore.models AS m
WHERE NOT EXISTS (SELECT FROM prescore.aliases AS a WHERE a.model = m.model AND a.version = m.version)
  AND NOT EXISTS (SELECT FROM prescore.head AS h WHERE h.model = m.model AND h.model_version = m.version)
  AND NOT EXISTS (SELECT FROM prescore.generations AS g WHERE g.model = m.model AND g.model_version = m.version)
  AND NOT EXISTS (SELECT FROM prescore.runs AS r WHERE r.model = m.model AND r.model_version = m.version AND r.status = 'running')
  AND m.version < (SELECT max(n.version) FROM prescore.models AS n WHERE n.model = m.model)
ORDER BY m.model, m.version
