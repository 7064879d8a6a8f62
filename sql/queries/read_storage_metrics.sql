-- Read how large the storages of each pipeline are, and how bloated its last run found the served rows.
-- Parameters: none. Grain: one row per pipeline and role; bloat only of the current one, NULL before a check has measured it.
SELECT s.pipeline, s.role, s.bytes, s.dead_rows,
       CASE WHEN s.role = 'current' THEN
           (SELECT k.observed
            FROM prescore.check_health AS k
            WHERE k.pipeline = s.pipeline AND k.check_id = 'storage.bloat' AND k.observed IS NOT NULL
            ORDER BY k.run_id DESC LIMIT 1)
       END AS bloat
FROM prescore.storage_health AS s
ORDER BY s.pipeline, s.role
