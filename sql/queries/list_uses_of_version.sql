-- Say what uses a model version: aliases that name it or named it, publications, runs at work; and the newest one, whose number
-- would be given again.
-- Parameters: model (text), version (integer). Grain: one row per use, in words.
SELECT DISTINCT CASE WHEN a.until IS NULL THEN format('the alias %s names it', a.alias)
                     ELSE format('the alias %s named it, and may go back to it', a.alias) END AS use
FROM prescore.aliases AS a WHERE a.model = :model AND a.version = :version
UNION ALL
SELECT format('%s serves predictions of it', h.pipeline) FROM prescore.head AS h
WHERE h.model = :model AND h.model_version = :version
UNION ALL
SELECT format('%s publications of %s are of it, the last one generation %s', count(*), g.pipeline, max(g.generation_id))
FROM prescore.generations AS g WHERE g.model = :model AND g.model_version = :version GROUP BY g.pipeline
UNION ALL
SELECT format('run %s of %s works with it', r.run_id, r.pipeline) FROM prescore.runs AS r
WHERE r.model = :model AND r.model_version = :version AND r.status = 'running'
UNION ALL
SELECT 'it is the newest one, and its number would be given again' WHERE :version = (
    SELECT max(m.version) FROM prescore.models AS m WHERE m.model = :model)
ORDER BY use
