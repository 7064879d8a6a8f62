-- List the runs of a pipeline since an instant by prescore.clock(). Skipped runs are left out: they did nothing.
-- Parameters: pipeline (text); since (timestamptz). Grain: one row per run, oldest first.
SELECT r.run_id, r.pipeline, r.status, r.trigger, r.mode, r.as_of, r.clock_at, r.started_at, r.ended_at, r.generation_id,
       r.model, r.model_version, r.contract_digest, r.population, r.scored, r.unchanged, r.rejected, r.new, r.changed,
       r.due, r.gone, r.message
FROM prescore.runs AS r
WHERE r.pipeline = :pipeline AND r.status <> 'skipped' AND r.clock_at >= :since
ORDER BY r.run_id
