-- Record a start by a schedule, or to make up for one, that has nothing to do: another run is at work, or has done it.
-- Parameters: pipeline, mode, trigger, host, logic_digest, contract_digest, message (text), started_by (text or NULL),
-- process_id (integer). Grain: one row.
INSERT INTO prescore.runs (pipeline, mode, trigger, status, clock_at, ended_at, backend_pid, host, process_id, logic_digest,
                           contract_digest, message, started_by)
VALUES (:pipeline, :mode, :trigger, 'skipped', prescore.clock(), clock_timestamp(), pg_backend_pid(), :host, :process_id,
        :logic_digest, :contract_digest, :message, :started_by)
RETURNING run_id
