-- Read what runs counted.
-- Parameters: run_ids (bigint[]). Grain: one row per run and column.
SELECT p.run_id, p.kind, p.name, r.mode, r.as_of, p.model, p.model_version, p.rows, p.nulls, p.nans, p.infinities, p.under,
       p.over, p.unseen, p.tails, p.minimum, p.maximum, p.mean, p.m2, p.counts, p.sums, p.digest
FROM prescore.profiles AS p
JOIN prescore.runs AS r USING (run_id)
WHERE p.run_id = ANY (CAST(:run_ids AS bigint[]))
ORDER BY p.run_id DESC, p.kind, p.name
