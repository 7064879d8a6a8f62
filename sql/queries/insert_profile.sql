-- Store what a run counted of one column.
-- Parameters: one per column; model and its version are those of the run. Grain: one row.
INSERT INTO prescore.profiles (run_id, kind, name, pipeline, generation_id, model, model_version, rows, nulls, nans, infinities,
                               under, over, unseen, tails, minimum, maximum, mean, m2, counts, sums, digest)
SELECT :run_id, :kind, :name, :pipeline, :generation_id, r.model, r.model_version, :rows, :nulls, :nans, :infinities,
       :under, :over, :unseen, :tails, :minimum, :maximum, :mean, :m2, CAST(:counts AS bigint[]),
       CAST(:sums AS double precision[]), :digest
FROM prescore.runs AS r
WHERE r.run_id = :run_id
