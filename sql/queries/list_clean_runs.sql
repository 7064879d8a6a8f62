-- List the runs that show what is usual, the newest first: published by a schedule or a recovery, neither undone nor
-- quarantined, nothing waived, no guard that warned or failed, and with a profile in the bins of this model version.
-- Warnings about the model itself (other libraries, columns it does not know, edited SQL with the same features) stand until
-- it is trained again and say nothing about the data of a run: they disqualify none.
-- Parameters: pipeline (text), mode (full or incremental), model_version (integer), before (timestamptz, of as_of), slot
-- (weekday, hour, hour_of_week, month, or NULL for all), timezone (IANA name), limit (bigint). Grain: one row per run.
SELECT r.run_id
FROM prescore.runs AS r
JOIN prescore.generations AS g ON g.generation_id = r.generation_id AND g.run_id = r.run_id
WHERE r.pipeline = :pipeline
  AND r.mode = :mode
  AND r.model_version = :model_version
  AND r.status = 'published'
  AND r.trigger IN ('scheduled', 'recovery')
  AND r.as_of < :before
  AND CASE CAST(:slot AS text)
          WHEN 'weekday' THEN extract(isodow FROM r.as_of AT TIME ZONE :timezone)
                              = extract(isodow FROM CAST(:before AS timestamptz) AT TIME ZONE :timezone)
          WHEN 'hour' THEN extract(hour FROM r.as_of AT TIME ZONE :timezone)
                           = extract(hour FROM CAST(:before AS timestamptz) AT TIME ZONE :timezone)
          WHEN 'hour_of_week' THEN to_char(r.as_of AT TIME ZONE :timezone, 'ID HH24')
                                   = to_char(CAST(:before AS timestamptz) AT TIME ZONE :timezone, 'ID HH24')
          WHEN 'month' THEN extract(month FROM r.as_of AT TIME ZONE :timezone)
                            = extract(month FROM CAST(:before AS timestamptz) AT TIME ZONE :timezone)
          ELSE true
      END
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
ORDER BY r.as_of DESC, r.run_id DESC
LIMIT :limit
