-- List the runs that later ones are compared with, of every mode and model version: what list_clean_runs finds for any of them.
-- Parameters: pipeline (text), slot (as there, or NULL), timezone (IANA name), of_all (the newest of a version), of_slot (the
-- newest of each slot). Grain: one row per run.
WITH clean AS (
    SELECT r.run_id, r.mode, r.model_version, r.as_of,
           CASE CAST(:slot AS text)
               WHEN 'weekday' THEN to_char(r.as_of AT TIME ZONE :timezone, 'ID')
               WHEN 'hour' THEN to_char(r.as_of AT TIME ZONE :timezone, 'HH24')
               WHEN 'hour_of_week' THEN to_char(r.as_of AT TIME ZONE :timezone, 'ID HH24')
               WHEN 'month' THEN to_char(r.as_of AT TIME ZONE :timezone, 'MM')
               ELSE ''
           END AS slot
    FROM prescore.runs AS r
    JOIN prescore.generations AS g ON g.generation_id = r.generation_id AND g.run_id = r.run_id
    WHERE r.pipeline = :pipeline AND r.status = 'published' AND r.trigger IN ('scheduled', 'recovery')
      AND g.undone_at IS NULL
      AND NOT EXISTS (SELECT FROM prescore.generations AS later
                      WHERE later.pipeline = r.pipeline AND g.generation_id = ANY (later.quarantined))
      AND NOT EXISTS (SELECT FROM prescore.head AS h
                      WHERE h.pipeline = r.pipeline AND g.generation_id = ANY (h.quarantined))
      AND NOT EXISTS (SELECT FROM prescore.checks AS c
                      WHERE c.run_id = r.run_id
                        AND (c.waived
                             OR (c.class = 'guard' AND c.effective = 'fail')
                             OR (c.class = 'guard' AND c.effective = 'warn'
                                 AND c.check_id NOT IN ('model.environment', 'schema', 'logic'))))
      AND EXISTS (SELECT FROM prescore.profiles AS p WHERE p.run_id = r.run_id)
)
SELECT ranked.run_id
FROM (SELECT clean.run_id,
             row_number() OVER (PARTITION BY mode, model_version ORDER BY as_of DESC, run_id DESC) AS of_all,
             row_number() OVER (PARTITION BY mode, model_version, slot ORDER BY as_of DESC, run_id DESC) AS of_slot
      FROM clean) AS ranked
WHERE ranked.of_all <= :of_all OR ranked.of_slot <= :of_slot
ORDER BY ranked.run_id
