-- Find the newest version of a pipeline's model that is newer than the one served and that no alias ever named.
-- Parameters: pipeline (text). Grain: one row, or none.
SELECT m.version
FROM prescore.head AS h
JOIN prescore.models AS m ON m.model = h.model AND m.version > h.model_version
WHERE h.pipeline = :pipeline
  AND NOT EXISTS (SELECT FROM prescore.aliases AS a WHERE a.model = m.model AND a.version = m.version)
ORDER BY m.version DESC
LIMIT 1
