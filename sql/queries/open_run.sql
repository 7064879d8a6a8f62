-- Open a run and reserve the generation that its rows are scored in.
-- Parameters: pipeline, mode, trigger, host, logic_digest, contract_digest, started_by (text or NULL), process_id (integer),
-- max_duration (interval). Grain: one row.
INSERT INTO prescore.runs (pipeline, mode, trigger, status, clock_at, backend_pid, backend_start, host, process_id,
                           generation_id, logic_digest, contract_digest, started_by, max_duration)
SELECT :pipeline, :mode, :trigger, 'running', prescore.clock(), pg_backend_pid(),
       (SELECT backend_start FROM pg_catalog.pg_stat_activity WHERE pid = pg_backend_pid()), :host, :process_id,
       nextval('prescore.generation_ids'), :logic_digest, :contract_digest, :started_by, :max_duration
RETURNING run_id, generation_id, started_at
