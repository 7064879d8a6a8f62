-- Record a scheduled start that met a run already at work.
-- Parameters: pipeline, mode, host, logic_digest, contract_digest, message (text), process_id (integer). Grain: one row.
INSERT INTO prescore.runs (pipeline, mode, trigger, status, clock_at, ended_at, backend_pid, host, process_id, logic_digest,
                           contract_digest, message)
VALUES (:pipeline, :mode, 'scheduled', 'skipped', prescore.clock(), clock_timestamp(), pg_backend_pid(), :host, :process_id,
        :logic_digest, :contract_digest, :message)
RETURNING run_id
