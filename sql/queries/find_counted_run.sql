-- Find the last of some runs that stored what its columns looked like.
-- Parameters: run_ids (bigint[]). Grain: one row, or none.
SELECT max(p.run_id) AS run_id
FROM prescore.profiles AS p
WHERE p.run_id = ANY (CAST(:run_ids AS bigint[]))
HAVING max(p.run_id) IS NOT NULL
