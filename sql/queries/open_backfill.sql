-- Begin an attempt at a past instant, and reserve the generation that its rows are scored in.
-- Parameters: pipeline, model, logic_digest, host (text), as_of (instant), model_version, process_id (integer). Grain: one row.
INSERT INTO prescore.backfills (generation_id, pipeline, as_of, status, model, model_version, logic_digest, backend_pid, host, process_id)
VALUES (nextval('prescore.generation_ids'), :pipeline, :as_of, 'running', :model, :model_version, :logic_digest, pg_backend_pid(),
        :host, :process_id)
RETURNING generation_id, started_at
