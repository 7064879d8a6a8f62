-- Runs: one row per execution of the scoring flow, whatever became of it.
CREATE TABLE prescore.runs (
    run_id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline        text        NOT NULL,
    mode            text        NOT NULL CHECK (mode IN ('full', 'incremental')),
    trigger         text        NOT NULL CHECK (trigger IN ('scheduled', 'manual', 'backfill', 'recovery')),
    status          text        NOT NULL CHECK (status IN ('running', 'published', 'held', 'aborted', 'failed', 'crashed',
                                                           'cancelled', 'skipped')),
    as_of           timestamptz,
    clock_at        timestamptz NOT NULL,
    started_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at        timestamptz,
    backend_pid     integer     NOT NULL,
    backend_start   timestamptz,
    host            text        NOT NULL,
    process_id      integer     NOT NULL,
    generation_id   bigint,
    model           text,
    model_version   integer,
    logic_digest    text        NOT NULL,
    contract_digest text        NOT NULL,
    population      bigint,
    scored          bigint,
    unchanged       bigint,
    rejected        bigint,
    new             bigint,
    changed         bigint,
    due             bigint,
    gone            bigint,
    key_checksum    numeric,
    rows_per_second double precision,
    peak_memory     bigint,
    message         text
);
CREATE INDEX runs_by_pipeline ON prescore.runs (pipeline, run_id DESC);
CREATE INDEX runs_running ON prescore.runs (pipeline) WHERE status = 'running';
COMMENT ON TABLE prescore.runs IS 'One row per execution of the scoring flow.';
COMMENT ON COLUMN prescore.runs.run_id IS 'Id of the run.';
COMMENT ON COLUMN prescore.runs.pipeline IS 'Pipeline that was run.';
COMMENT ON COLUMN prescore.runs.mode IS 'full: every entity; incremental: what needed a prediction.';
COMMENT ON COLUMN prescore.runs.trigger IS 'What started it: scheduled, manual, backfill or recovery.';
COMMENT ON COLUMN prescore.runs.status IS 'running, or how it ended.';
COMMENT ON COLUMN prescore.runs.as_of IS 'The instant that the data was looked at from.';
COMMENT ON COLUMN prescore.runs.clock_at IS 'prescore.clock() when the run was opened.';
COMMENT ON COLUMN prescore.runs.started_at IS 'When the run was opened, by the real clock.';
COMMENT ON COLUMN prescore.runs.heartbeat_at IS 'When the run last showed that it was alive, by the real clock.';
COMMENT ON COLUMN prescore.runs.ended_at IS 'When it ended, by the real clock.';
COMMENT ON COLUMN prescore.runs.backend_pid IS 'Backend that holds the lock of the run and publishes.';
COMMENT ON COLUMN prescore.runs.backend_start IS 'When that backend started; pids are used again.';
COMMENT ON COLUMN prescore.runs.host IS 'Machine that the run was started on.';
COMMENT ON COLUMN prescore.runs.process_id IS 'Process on that machine.';
COMMENT ON COLUMN prescore.runs.generation_id IS 'Generation that its rows are scored in; published only when the status says so.';
COMMENT ON COLUMN prescore.runs.model IS 'Model that scored.';
COMMENT ON COLUMN prescore.runs.model_version IS 'Version of that model.';
COMMENT ON COLUMN prescore.runs.logic_digest IS 'Logic digest of the declaration that was run.';
COMMENT ON COLUMN prescore.runs.contract_digest IS 'Contract digest of the declaration that was run.';
COMMENT ON COLUMN prescore.runs.population IS 'Entities in the population: scored + unchanged + rejected.';
COMMENT ON COLUMN prescore.runs.scored IS 'Entities that got a new prediction.';
COMMENT ON COLUMN prescore.runs.unchanged IS 'Entities that the run did not need to score.';
COMMENT ON COLUMN prescore.runs.rejected IS 'Entities that could not be scored.';
COMMENT ON COLUMN prescore.runs.new IS 'Entities that were not served before.';
COMMENT ON COLUMN prescore.runs.changed IS 'Entities that changes.sql named.';
COMMENT ON COLUMN prescore.runs.due IS 'Entities selected for their age, or because they were rejected last time.';
COMMENT ON COLUMN prescore.runs.gone IS 'Entities served before that are no longer in the population.';
COMMENT ON COLUMN prescore.runs.key_checksum IS 'Sum of the 64-bit hashes of the keys of the population.';
COMMENT ON COLUMN prescore.runs.rows_per_second IS 'Rows read, scored and written per second.';
COMMENT ON COLUMN prescore.runs.peak_memory IS 'Peak memory of the process in bytes.';
COMMENT ON COLUMN prescore.runs.message IS 'How it ended, in a sentence.';

CREATE TABLE prescore.rejections (
    run_id   bigint NOT NULL REFERENCES prescore.runs ON DELETE CASCADE,
    pipeline text   NOT NULL,
    key      jsonb  NOT NULL,
    reason   text   NOT NULL
);
CREATE INDEX rejections_by_run ON prescore.rejections (run_id);
COMMENT ON TABLE prescore.rejections IS 'Entities that a run could not score, with the reason; the only place outside the rows where keys appear.';
COMMENT ON COLUMN prescore.rejections.run_id IS 'Run that rejected the entity.';
COMMENT ON COLUMN prescore.rejections.pipeline IS 'Pipeline of the run.';
COMMENT ON COLUMN prescore.rejections.key IS 'Key columns and values of the entity.';
COMMENT ON COLUMN prescore.rejections.reason IS 'no_features, null:<column>, non_finite:<output>, duplicate_features and the like.';
