-- Record a start that was refused before a run could be opened, so that health tells of it.
-- Parameters: pipeline, mode, trigger, host, logic_digest, contract_digest, message (text), process_id (integer). Grain: one row.
INSERT INTO prescore.runs (pipeline, mode, trigger, status, clock_at, ended_at, backend_pid, host, process_id, logic_digest,
                           contract_digest, message)
VALUES (:pipeline, :mode, :trigger, 'failed', prescore.clock(), clock_timestamp(), pg_backend_pid(), :host, :process_id,
        :logic_digest, :contract_digest, :message)
RETURNING run_id
