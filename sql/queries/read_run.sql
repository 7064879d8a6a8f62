-- Read what is stored of a run, with the promise of what it published.
-- Parameters: run_id (bigint). Grain: one row.
SELECT r.run_id, r.pipeline, r.status, r.trigger, r.started_by, r.mode, r.as_of, r.message, r.model, r.model_version, r.population,
       r.scored, r.unchanged, r.rejected, r.new, r.changed, r.due, r.gone, r.rows_per_second, r.peak_memory, r.cost,
       CASE r.status WHEN 'published' THEN r.generation_id END AS generation_id,
       g.data_as_of, g.aging_at, g.stale_at, g.expires_at
FROM prescore.runs AS r
LEFT JOIN prescore.generations AS g ON g.run_id = r.run_id
WHERE r.run_id = :run_id
