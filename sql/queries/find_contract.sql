-- Find the contract that a run is judged under.
-- Parameters: run_id (bigint). Grain: one row, or none when its text was not kept.
SELECT k.digest
FROM prescore.runs AS r
JOIN prescore.contracts AS k ON k.pipeline = r.pipeline AND k.digest = r.contract_digest
WHERE r.run_id = :run_id
