-- List the latest runs of a pipeline: those since the publication that lies `generations` back, and as many full runs.
-- Skipped runs are left out: they did nothing.
-- Parameters: pipeline (text); generations (integer, how many publications to go back). Grain: one row per run, oldest first.
SELECT r.run_id, r.pipeline, r.status, r.trigger, r.mode, r.as_of, r.clock_at, r.started_at, r.ended_at, r.generation_id,
       r.model, r.model_version, r.contract_digest, r.population, r.scored, r.unchanged, r.rejected, r.new, r.changed,
       r.due, r.gone, r.message
FROM prescore.runs AS r
WHERE r.pipeline = :pipeline AND r.status <> 'skipped'
  AND (r.run_id >= coalesce((SELECT min(g.run_id)
                             FROM (SELECT k.run_id FROM prescore.generations AS k WHERE k.pipeline = :pipeline
                                   ORDER BY k.generation_id DESC LIMIT :generations) AS g), 0)
       OR r.run_id IN (SELECT f.run_id FROM prescore.runs AS f
                       WHERE f.pipeline = :pipeline AND f.mode = 'full' AND f.status <> 'skipped'
                       ORDER BY f.run_id DESC LIMIT :generations))
ORDER BY r.run_id
