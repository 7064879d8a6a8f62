-- The schema of prescore in one piece, for reading. `prescore migrate` is what makes and changes it, from
-- sql/migrations; tests/database/test_migrations.py proves that both come to the same. It can be run in an empty
-- database to look around in, but leaves the ledger of migrations empty: such a database cannot be migrated.
--
-- What is where:
--   prescore       control: migrations, clock, pipelines, schedules, models, runs, publications, checks, health
--   prescore_rows  rows of each pipeline: a table with three fixed storages, made by its first run
--                  (sql/queries/create_rows_table.sql)
--   predictions    what readers read: a view, its usable rows and a lookup function per pipeline, made by its first
--                  run (sql/queries/create_predictions_view.sql, create_usable_view.sql, create_lookup_function.sql)

-- Three schemas, and the ledger that says which migrations a database has.
CREATE SCHEMA prescore;
COMMENT ON SCHEMA prescore IS 'Control tables of prescore: runs, publications, models, checks.';
CREATE SCHEMA prescore_rows;
COMMENT ON SCHEMA prescore_rows IS 'Rows of each pipeline; read them through the schema predictions.';
CREATE SCHEMA predictions;
COMMENT ON SCHEMA predictions IS 'What readers are granted: one view per pipeline, its usable rows, its lookup function.';

CREATE TABLE prescore.migrations (
    name       text        PRIMARY KEY,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE prescore.migrations IS 'Which migrations this database has.';
COMMENT ON COLUMN prescore.migrations.name IS 'File name without its ending.';
COMMENT ON COLUMN prescore.migrations.checksum IS 'SHA-256 of the text that was applied.';
COMMENT ON COLUMN prescore.migrations.applied_at IS 'When it was applied.';

-- The clock that judges freshness. It reads no table (a function in a view runs as the reader) and no setting (a
-- reader could set the time); tests and the demo replace it in a database of their own.
CREATE FUNCTION prescore.clock() RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT statement_timestamp() $$;

COMMENT ON FUNCTION prescore.clock() IS
    'The instant that freshness is judged at. statement_timestamp(), so that a long transaction still sees predictions go stale.';

-- Pipelines that have run here, and the schedules that they promised to keep.
CREATE TABLE prescore.pipelines (
    pipeline        text        PRIMARY KEY,
    key_columns     text[],
    key_types       text[],
    output_columns  text[],
    output_types    text[],
    model           text        NOT NULL,
    alias           text        NOT NULL,
    contract_text   text        NOT NULL,
    contract_digest text        NOT NULL,
    logic_digest    text        NOT NULL,
    registered_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    pinned_at       timestamptz,
    pinned_because  text,
    views_digest    text,
    history_keep    interval,
    past_removed_at timestamptz
);
COMMENT ON TABLE prescore.pipelines IS 'One row per pipeline that has run in this database.';
COMMENT ON COLUMN prescore.pipelines.pipeline IS 'Name of the pipeline, the name of its folder.';
COMMENT ON COLUMN prescore.pipelines.key_columns IS 'Key columns, in order; NULL until its objects are made.';
COMMENT ON COLUMN prescore.pipelines.key_types IS 'SQL types of the key columns, in the same order.';
COMMENT ON COLUMN prescore.pipelines.output_columns IS 'Prediction columns, in the order of the view; NULL until its objects are made.';
COMMENT ON COLUMN prescore.pipelines.output_types IS 'SQL types of the prediction columns, in the same order.';
COMMENT ON COLUMN prescore.pipelines.model IS 'Model that the pipeline scores with.';
COMMENT ON COLUMN prescore.pipelines.alias IS 'Alias that names the version to use.';
COMMENT ON COLUMN prescore.pipelines.contract_text IS 'pipeline.toml as the last run read it.';
COMMENT ON COLUMN prescore.pipelines.contract_digest IS 'SHA-256 of everything declared that changes no prediction.';
COMMENT ON COLUMN prescore.pipelines.logic_digest IS 'SHA-256 of everything declared that decides predictions.';
COMMENT ON COLUMN prescore.pipelines.registered_at IS 'When the pipeline ran here first.';
COMMENT ON COLUMN prescore.pipelines.pinned_at IS 'Since when a rollback refuses runs; NULL when runs are welcome.';
COMMENT ON COLUMN prescore.pipelines.pinned_because IS 'What pinned the pipeline.';
COMMENT ON COLUMN prescore.pipelines.views_digest IS 'SHA-256 of the statements that made its views and function; another one makes the next run replace them.';
COMMENT ON COLUMN prescore.pipelines.history_keep IS 'How long what readers saw is kept, [history] keep of the last run; NULL where no history is kept.';
COMMENT ON COLUMN prescore.pipelines.past_removed_at IS 'When all that was past [retention] was last removed, by prescore.clock(); NULL before that.';

CREATE TABLE prescore.contracts (
    pipeline      text        NOT NULL REFERENCES prescore.pipelines,
    digest        text        NOT NULL,
    text          text        NOT NULL,
    first_used_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (pipeline, digest)
);
COMMENT ON TABLE prescore.contracts IS 'Each contract that runs were judged under: its text, by the digest that the runs hold.';
COMMENT ON COLUMN prescore.contracts.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.contracts.digest IS 'SHA-256 of everything declared that changes no prediction; contract_digest of the runs.';
COMMENT ON COLUMN prescore.contracts.text IS 'pipeline.toml as the first run with this digest read it.';
COMMENT ON COLUMN prescore.contracts.first_used_at IS 'When that run began, by the real clock.';

-- Remember the names that pipelines had: applications and models may still use them, and runs must not.
CREATE TABLE prescore.former_names (
    pipeline    text        NOT NULL REFERENCES prescore.pipelines,
    former      text        NOT NULL CHECK (former <> pipeline),
    use         text        NOT NULL CHECK (use IN ('alias', 'refused', 'free')),
    renamed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    renamed_by  text        NOT NULL DEFAULT session_user,
    os_user     text,
    renamed_xid xid8,
    PRIMARY KEY (pipeline, former)
);
CREATE UNIQUE INDEX former_names_in_use ON prescore.former_names (former) WHERE use <> 'free';
COMMENT ON TABLE prescore.former_names IS 'Names that pipelines had before they were renamed.';
COMMENT ON COLUMN prescore.former_names.pipeline IS 'Name of the pipeline now.';
COMMENT ON COLUMN prescore.former_names.former IS 'A name that it had.';
COMMENT ON COLUMN prescore.former_names.use IS 'alias: views of this name still answer; refused: nothing has it, and a run under it is told the new one; free: anybody may have it.';
COMMENT ON COLUMN prescore.former_names.renamed_at IS 'When it was given up.';
COMMENT ON COLUMN prescore.former_names.renamed_by IS 'Database role that renamed the pipeline.';
COMMENT ON COLUMN prescore.former_names.os_user IS 'User of the operating system who did, where it is known.';
COMMENT ON COLUMN prescore.former_names.renamed_xid IS 'Transaction that did: older snapshots find head under this name; NULL once there are none.';

CREATE TABLE prescore.schedules (
    pipeline  text        NOT NULL REFERENCES prescore.pipelines,
    mode      text        NOT NULL CHECK (mode IN ('full', 'incremental')),
    crons     text[]      NOT NULL,
    timezone  text        NOT NULL,
    grace     interval    NOT NULL,
    next_tick timestamptz NOT NULL,
    PRIMARY KEY (pipeline, mode)
);
COMMENT ON TABLE prescore.schedules IS 'What each pipeline promised: overdue once next_tick + grace has passed.';
COMMENT ON COLUMN prescore.schedules.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.schedules.mode IS 'full or incremental; a full publication covers incremental ticks too.';
COMMENT ON COLUMN prescore.schedules.crons IS 'Cron expressions, in the time zone beside them.';
COMMENT ON COLUMN prescore.schedules.timezone IS 'IANA time zone that the cron expressions are read in.';
COMMENT ON COLUMN prescore.schedules.grace IS 'How late a publication may be before the pipeline counts as overdue.';
COMMENT ON COLUMN prescore.schedules.next_tick IS 'First tick that no scheduled publication covers yet.';

-- The model registry: immutable versions, their bundles in chunks, and aliases with their history.
CREATE TABLE prescore.models (
    model            text        NOT NULL,
    version          integer     NOT NULL CHECK (version > 0),
    digest           text        NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by       text        NOT NULL DEFAULT session_user,
    source           text        NOT NULL,
    train_data_until timestamptz NOT NULL,
    logic_digest     text,
    metrics          jsonb       NOT NULL DEFAULT '{}',
    environment      jsonb       NOT NULL DEFAULT '{}',
    signature        jsonb       NOT NULL DEFAULT '{}',
    probes           jsonb       NOT NULL DEFAULT '{}',
    trusted_pickle   boolean     NOT NULL DEFAULT false,
    size_bytes       bigint      NOT NULL,
    trusted_by       text,
    trusted_os_user  text,
    trusted_at       timestamptz,
    trusted_sha256   text,
    PRIMARY KEY (model, version),
    UNIQUE (model, digest),
    CONSTRAINT models_trust
        CHECK (trusted_pickle = (trusted_by IS NOT NULL) AND trusted_pickle = (trusted_at IS NOT NULL))
);
COMMENT ON TABLE prescore.models IS 'One row per model version; a version never changes.';
COMMENT ON COLUMN prescore.models.model IS 'Name of the model.';
COMMENT ON COLUMN prescore.models.version IS 'Counts up from 1 for each model.';
COMMENT ON COLUMN prescore.models.digest IS 'SHA-256 of the bundle, checked on every load before anything is read from it.';
COMMENT ON COLUMN prescore.models.created_at IS 'When the version was registered.';
COMMENT ON COLUMN prescore.models.created_by IS 'Database role that registered it.';
COMMENT ON COLUMN prescore.models.source IS 'Where the version came from: a training run or a file.';
COMMENT ON COLUMN prescore.models.train_data_until IS 'End of the data that the model was fitted on; model age counts from here.';
COMMENT ON COLUMN prescore.models.logic_digest IS 'Logic digest of the pipeline that the model was trained with.';
COMMENT ON COLUMN prescore.models.metrics IS 'Metrics on the held-out slice, beside a naive baseline.';
COMMENT ON COLUMN prescore.models.environment IS 'Versions of Python and the libraries that made the model.';
COMMENT ON COLUMN prescore.models.signature IS 'Key, feature and prediction columns with their SQL types.';
COMMENT ON COLUMN prescore.models.probes IS 'What NULL, NaN, infinity and unseen categories gave at registration.';
COMMENT ON COLUMN prescore.models.trusted_pickle IS 'A person vouched for a pickle or joblib file.';
COMMENT ON COLUMN prescore.models.size_bytes IS 'Size of the bundle in bytes.';
COMMENT ON COLUMN prescore.models.trusted_by IS 'Database role that vouched for the pickle or joblib file; NULL for a skops file.';
COMMENT ON COLUMN prescore.models.trusted_os_user IS 'User of the operating system who did, where it is known.';
COMMENT ON COLUMN prescore.models.trusted_at IS 'When they did.';
COMMENT ON COLUMN prescore.models.trusted_sha256 IS 'SHA-256 of the file that they vouched for; no other one is opened. NULL if that was not recorded yet.';

CREATE TABLE prescore.model_chunks (
    model   text    NOT NULL,
    version integer NOT NULL,
    chunk   integer NOT NULL CHECK (chunk >= 0),
    data    bytea   NOT NULL,
    PRIMARY KEY (model, version, chunk),
    FOREIGN KEY (model, version) REFERENCES prescore.models ON DELETE CASCADE
);
ALTER TABLE prescore.model_chunks ALTER COLUMN data SET STORAGE EXTERNAL;
COMMENT ON TABLE prescore.model_chunks IS 'Bundles in chunks of at most 4 MiB; already compressed.';
COMMENT ON COLUMN prescore.model_chunks.model IS 'Name of the model.';
COMMENT ON COLUMN prescore.model_chunks.version IS 'Version of the model.';
COMMENT ON COLUMN prescore.model_chunks.chunk IS 'Position of the chunk, from 0.';
COMMENT ON COLUMN prescore.model_chunks.data IS 'Bytes of the chunk.';

CREATE TABLE prescore.aliases (
    model   text        NOT NULL,
    alias   text        NOT NULL,
    version integer     NOT NULL,
    since   timestamptz NOT NULL DEFAULT clock_timestamp(),
    until   timestamptz,
    set_by  text        NOT NULL DEFAULT session_user,
    because text        NOT NULL,
    went_back boolean   NOT NULL DEFAULT false,
    FOREIGN KEY (model, version) REFERENCES prescore.models,
    CHECK (since <= until)
);
CREATE UNIQUE INDEX aliases_current ON prescore.aliases (model, alias) WHERE until IS NULL;
CREATE INDEX aliases_history ON prescore.aliases (model, alias, since);
COMMENT ON TABLE prescore.aliases IS 'Which version an alias named, and when: the current row has no end.';
COMMENT ON COLUMN prescore.aliases.model IS 'Name of the model.';
COMMENT ON COLUMN prescore.aliases.alias IS 'champion, challenger or another name of a role.';
COMMENT ON COLUMN prescore.aliases.version IS 'Version that the alias named.';
COMMENT ON COLUMN prescore.aliases.since IS 'From when the alias named this version.';
COMMENT ON COLUMN prescore.aliases.until IS 'Until when; NULL for the current row.';
COMMENT ON COLUMN prescore.aliases.set_by IS 'Database role that moved the alias.';
COMMENT ON COLUMN prescore.aliases.because IS 'Why it was moved.';
COMMENT ON COLUMN prescore.aliases.went_back IS 'A rollback returned to this version; a promotion otherwise.';

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
    message         text,
    cost            jsonb,
    started_by      text,
    max_duration    interval,
    cancel_asked_at timestamptz,
    cancel_asked_by text,
    cancel_because  text
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
COMMENT ON COLUMN prescore.runs.cost IS 'What it cost, in seconds: of the run, its steps, the stages of its stream, and per million predictions; NULL where it was not added up.';
COMMENT ON COLUMN prescore.runs.started_by IS 'Who or what started it, where it is known: the user of the operating system, whom the form on the page of Prefect names, a schedule or an automation.';
COMMENT ON COLUMN prescore.runs.max_duration IS 'How long it may take from started_at on: then it is ended, by itself or by the next run. NULL for runs of earlier revisions.';
COMMENT ON COLUMN prescore.runs.cancel_asked_at IS 'When somebody first asked it to end, by the real clock. From then on it cannot publish.';
COMMENT ON COLUMN prescore.runs.cancel_asked_by IS 'Who asked: user and machine, or role of the database.';
COMMENT ON COLUMN prescore.runs.cancel_because IS 'Why, in their words.';

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

-- What was published, where it is stored, and the one row per pipeline that readers depend on.
CREATE SEQUENCE prescore.generation_ids AS bigint;
COMMENT ON SEQUENCE prescore.generation_ids IS 'Ids of generations; a run that is never published leaves a gap.';

CREATE TABLE prescore.generations (
    generation_id   bigint           PRIMARY KEY,
    pipeline        text             NOT NULL REFERENCES prescore.pipelines,
    run_id          bigint           NOT NULL REFERENCES prescore.runs,
    mode            text             NOT NULL,
    storage_id      smallint         NOT NULL,
    published_at    timestamptz      NOT NULL,
    undone_at       timestamptz,
    as_of           timestamptz      NOT NULL,
    watermark       timestamptz      NOT NULL,
    valid_since     bigint           NOT NULL,
    quarantined     bigint[]         NOT NULL DEFAULT '{}',
    data_as_of      timestamptz      NOT NULL,
    aging_at        timestamptz      NOT NULL,
    stale_at        timestamptz      NOT NULL,
    expires_at      timestamptz      NOT NULL,
    aging_after     interval         NOT NULL,
    stale_after     interval         NOT NULL,
    serve_stale_for interval         NOT NULL,
    model_aging_at  timestamptz      NOT NULL,
    model_stale_at  timestamptz      NOT NULL,
    time_invariant  boolean          NOT NULL,
    serve_expired   boolean          NOT NULL,
    verdict         text             NOT NULL CHECK (verdict IN ('pass', 'warn', 'fail')),
    reasons         text[]           NOT NULL DEFAULT '{}',
    model           text             NOT NULL,
    model_version   integer          NOT NULL,
    logic_digest    text             NOT NULL,
    rows            bigint           NOT NULL,
    key_checksum    numeric          NOT NULL,
    quarantined_at  timestamptz,
    CHECK (data_as_of <= aging_at AND aging_at <= stale_at AND stale_at <= expires_at)
);
CREATE INDEX generations_by_pipeline ON prescore.generations (pipeline, generation_id DESC);
CREATE INDEX generations_by_run ON prescore.generations (run_id);
COMMENT ON TABLE prescore.generations IS 'One row per publication, as it was published; a rollback restores head from here.';
COMMENT ON COLUMN prescore.generations.generation_id IS 'Id of the publication.';
COMMENT ON COLUMN prescore.generations.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.generations.run_id IS 'Run that made it.';
COMMENT ON COLUMN prescore.generations.mode IS 'full or incremental.';
COMMENT ON COLUMN prescore.generations.storage_id IS 'Storage that holds its rows.';
COMMENT ON COLUMN prescore.generations.published_at IS 'When it was published, by the real clock.';
COMMENT ON COLUMN prescore.generations.undone_at IS 'When a rollback undid it; NULL otherwise.';
COMMENT ON COLUMN prescore.generations.as_of IS 'The instant that its run looked at the data from.';
COMMENT ON COLUMN prescore.generations.watermark IS 'Changes since this instant are still to be scored.';
COMMENT ON COLUMN prescore.generations.valid_since IS 'Rows scored in an earlier generation are superseded.';
COMMENT ON COLUMN prescore.generations.quarantined IS 'Generations found bad after publication; readers do not see their scores.';
COMMENT ON COLUMN prescore.generations.data_as_of IS 'How old the data is that the predictions rest on: the oldest required source.';
COMMENT ON COLUMN prescore.generations.aging_at IS 'From when the state is aging.';
COMMENT ON COLUMN prescore.generations.stale_at IS 'From when the state is stale.';
COMMENT ON COLUMN prescore.generations.expires_at IS 'From when the state is expired and scores are withheld.';
COMMENT ON COLUMN prescore.generations.aging_after IS 'Contract: a row is aging when its data is this old.';
COMMENT ON COLUMN prescore.generations.stale_after IS 'Contract: a row is stale when its data is this old.';
COMMENT ON COLUMN prescore.generations.serve_stale_for IS 'Contract: how long stale predictions are still served.';
COMMENT ON COLUMN prescore.generations.model_aging_at IS 'From when the model is old enough to warn.';
COMMENT ON COLUMN prescore.generations.model_stale_at IS 'From when the model is too old.';
COMMENT ON COLUMN prescore.generations.time_invariant IS 'Unchanged rows share the age of head: features do not depend on as_of, or each run compares those of everybody.';
COMMENT ON COLUMN prescore.generations.serve_expired IS 'Contract: on_expired = "serve", expired scores are still shown.';
COMMENT ON COLUMN prescore.generations.verdict IS 'Worst verdict of the checks that flag a publication.';
COMMENT ON COLUMN prescore.generations.reasons IS 'What the checks found, for readers.';
COMMENT ON COLUMN prescore.generations.model IS 'Model that scored.';
COMMENT ON COLUMN prescore.generations.model_version IS 'Version of that model.';
COMMENT ON COLUMN prescore.generations.logic_digest IS 'Logic digest of the declaration that was run.';
COMMENT ON COLUMN prescore.generations.rows IS 'Rows of the publication, rejected ones included.';
COMMENT ON COLUMN prescore.generations.key_checksum IS 'Sum of the 64-bit hashes of their keys.';
COMMENT ON COLUMN prescore.generations.quarantined_at IS 'Since when it is known to be bad; NULL otherwise.';

CREATE TABLE prescore.dataset_readings (
    pipeline      text        NOT NULL REFERENCES prescore.pipelines,
    generation_id bigint      NOT NULL,
    digest        text        NOT NULL,
    newest        timestamptz,
    modified_at   timestamptz NOT NULL,
    rows          bigint      NOT NULL,
    outside       bigint,
    noted_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (pipeline, generation_id)
);
COMMENT ON TABLE prescore.dataset_readings IS 'What a generation has read of its dataset, where [features] declares one; a row of a run that did not publish means nothing.';
COMMENT ON COLUMN prescore.dataset_readings.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.dataset_readings.generation_id IS 'Generation whose features were read.';
COMMENT ON COLUMN prescore.dataset_readings.digest IS 'SHA-256 of the names of the files, and of what their store says of the content of each.';
COMMENT ON COLUMN prescore.dataset_readings.newest IS 'Newest updated_at (or as_of) of its rows up to the run''s as_of: newer rows are changes. NULL where none is declared.';
COMMENT ON COLUMN prescore.dataset_readings.modified_at IS 'When a file was last written, by the clock of the store.';
COMMENT ON COLUMN prescore.dataset_readings.rows IS 'Rows of all files.';
COMMENT ON COLUMN prescore.dataset_readings.outside IS 'Rows of keys outside of the population, which were ignored; NULL in an incremental run, which does not know.';
COMMENT ON COLUMN prescore.dataset_readings.noted_at IS 'When the row was written, by the real clock.';

CREATE TABLE prescore.archives (
    pipeline      text        NOT NULL REFERENCES prescore.pipelines,
    generation_id bigint      NOT NULL,
    url           text        NOT NULL,
    status        text        NOT NULL CHECK (status IN ('owed', 'archived', 'failed')),
    problem       text,
    amends        bigint,
    rows          bigint,
    files         integer,
    bytes         bigint,
    noted_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (pipeline, generation_id)
);
COMMENT ON TABLE prescore.archives IS 'Copies of publications as Parquet, one row per generation of a pipeline that declares [archive]; a row of a run that did not publish means nothing.';
COMMENT ON COLUMN prescore.archives.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.archives.generation_id IS 'Generation that is copied.';
COMMENT ON COLUMN prescore.archives.url IS 'Where to: [archive] url.';
COMMENT ON COLUMN prescore.archives.status IS 'owed (written before head moved), archived (a client can read it) or failed.';
COMMENT ON COLUMN prescore.archives.problem IS 'Why it failed; NULL otherwise.';
COMMENT ON COLUMN prescore.archives.amends IS 'Generation whose copy this one amends; NULL for a whole table.';
COMMENT ON COLUMN prescore.archives.rows IS 'Rows that were copied.';
COMMENT ON COLUMN prescore.archives.files IS 'Parquet files.';
COMMENT ON COLUMN prescore.archives.bytes IS 'Their size together.';
COMMENT ON COLUMN prescore.archives.noted_at IS 'When the row was last written, by the real clock.';

CREATE TABLE prescore.head (
    pipeline        text             PRIMARY KEY REFERENCES prescore.pipelines,
    generation_id   bigint           NOT NULL,
    storage_id      smallint         NOT NULL,
    published_at    timestamptz      NOT NULL,
    as_of           timestamptz      NOT NULL,
    watermark       timestamptz      NOT NULL,
    valid_since     bigint           NOT NULL,
    quarantined     bigint[]         NOT NULL DEFAULT '{}',
    data_as_of      timestamptz      NOT NULL,
    aging_at        timestamptz      NOT NULL,
    stale_at        timestamptz      NOT NULL,
    expires_at      timestamptz      NOT NULL,
    aging_after     interval         NOT NULL,
    stale_after     interval         NOT NULL,
    serve_stale_for interval         NOT NULL,
    model_aging_at  timestamptz      NOT NULL,
    model_stale_at  timestamptz      NOT NULL,
    time_invariant  boolean          NOT NULL,
    serve_expired   boolean          NOT NULL,
    verdict         text             NOT NULL CHECK (verdict IN ('pass', 'warn', 'fail')),
    reasons         text[]           NOT NULL DEFAULT '{}',
    model           text             NOT NULL,
    model_version   integer          NOT NULL,
    logic_digest    text             NOT NULL,
    rows            bigint           NOT NULL,
    key_checksum    numeric          NOT NULL,
    quarantined_because text[]       NOT NULL DEFAULT '{}',
    CHECK (data_as_of <= aging_at AND aging_at <= stale_at AND stale_at <= expires_at)
) WITH (fillfactor = 50);
COMMENT ON TABLE prescore.head IS 'The one row per pipeline that readers depend on; moving it is the publication.';
COMMENT ON COLUMN prescore.head.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.head.generation_id IS 'Id of the publication.';
COMMENT ON COLUMN prescore.head.storage_id IS 'Storage that holds its rows.';
COMMENT ON COLUMN prescore.head.published_at IS 'When it was published, by the real clock.';
COMMENT ON COLUMN prescore.head.as_of IS 'The instant that its run looked at the data from.';
COMMENT ON COLUMN prescore.head.watermark IS 'Changes since this instant are still to be scored.';
COMMENT ON COLUMN prescore.head.valid_since IS 'Rows scored in an earlier generation are superseded.';
COMMENT ON COLUMN prescore.head.quarantined IS 'Generations found bad after publication; readers do not see their scores.';
COMMENT ON COLUMN prescore.head.data_as_of IS 'How old the data is that the predictions rest on: the oldest required source.';
COMMENT ON COLUMN prescore.head.aging_at IS 'From when the state is aging.';
COMMENT ON COLUMN prescore.head.stale_at IS 'From when the state is stale.';
COMMENT ON COLUMN prescore.head.expires_at IS 'From when the state is expired and scores are withheld.';
COMMENT ON COLUMN prescore.head.aging_after IS 'Contract: a row is aging when its data is this old.';
COMMENT ON COLUMN prescore.head.stale_after IS 'Contract: a row is stale when its data is this old.';
COMMENT ON COLUMN prescore.head.serve_stale_for IS 'Contract: how long stale predictions are still served.';
COMMENT ON COLUMN prescore.head.model_aging_at IS 'From when the model is old enough to warn.';
COMMENT ON COLUMN prescore.head.model_stale_at IS 'From when the model is too old.';
COMMENT ON COLUMN prescore.head.time_invariant IS 'Unchanged rows share the age of head: features do not depend on as_of, or each run compares those of everybody.';
COMMENT ON COLUMN prescore.head.serve_expired IS 'Contract: on_expired = "serve", expired scores are still shown.';
COMMENT ON COLUMN prescore.head.verdict IS 'Worst verdict of the checks that flag a publication.';
COMMENT ON COLUMN prescore.head.reasons IS 'What the checks found, for readers.';
COMMENT ON COLUMN prescore.head.model IS 'Model that scored.';
COMMENT ON COLUMN prescore.head.model_version IS 'Version of that model.';
COMMENT ON COLUMN prescore.head.logic_digest IS 'Logic digest of the declaration that was run.';
COMMENT ON COLUMN prescore.head.rows IS 'Rows of the publication, rejected ones included.';
COMMENT ON COLUMN prescore.head.key_checksum IS 'Sum of the 64-bit hashes of their keys.';
COMMENT ON COLUMN prescore.head.quarantined_because IS 'Why, for each of the quarantined generations, in the same order.';

CREATE TABLE prescore.storages (
    pipeline      text     NOT NULL REFERENCES prescore.pipelines,
    storage_id    smallint NOT NULL CHECK (storage_id BETWEEN 1 AND 3),
    role          text     NOT NULL CHECK (role IN ('current', 'previous', 'next')),
    generation_id bigint,
    retired_at    timestamptz,
    retired_xid   xid8,
    oldest_as_of  timestamptz,
    rejected      bigint,
    PRIMARY KEY (pipeline, storage_id),
    UNIQUE (pipeline, role) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE prescore.storages IS 'The three fixed partitions of each pipeline: what each one holds.';
COMMENT ON COLUMN prescore.storages.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.storages.storage_id IS '1, 2 or 3: the partition prescore_rows.<pipeline>_<storage_id>.';
COMMENT ON COLUMN prescore.storages.role IS 'current: head reads it; previous: a rollback returns to it; next: cleared, or being filled.';
COMMENT ON COLUMN prescore.storages.generation_id IS 'Last generation published into it; NULL for next.';
COMMENT ON COLUMN prescore.storages.retired_at IS 'When head left it.';
COMMENT ON COLUMN prescore.storages.retired_xid IS 'Transaction in which head left it: older snapshots may still read it.';
COMMENT ON COLUMN prescore.storages.oldest_as_of IS 'No row in it is older than this instant; NULL where that is not known.';
COMMENT ON COLUMN prescore.storages.rejected IS 'At most so many of its rows have no prediction; NULL where that is not known.';

CREATE TABLE prescore.foreign_writes (
    pipeline    text        NOT NULL REFERENCES prescore.pipelines,
    storage_id  smallint    NOT NULL CHECK (storage_id BETWEEN 1 AND 3),
    written_xid xid8        NOT NULL DEFAULT pg_current_xact_id(),
    written_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    written_by  text        NOT NULL DEFAULT session_user,
    PRIMARY KEY (pipeline, storage_id, written_xid)
);
COMMENT ON TABLE prescore.foreign_writes IS 'Transactions of others than prescore that wrote into rows of a pipeline: everything is scored anew then.';
COMMENT ON COLUMN prescore.foreign_writes.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.foreign_writes.storage_id IS 'Storage that was written into; each of them when it was done through the table of all.';
COMMENT ON COLUMN prescore.foreign_writes.written_xid IS 'The transaction.';
COMMENT ON COLUMN prescore.foreign_writes.written_at IS 'When, by the real clock.';
COMMENT ON COLUMN prescore.foreign_writes.written_by IS 'Database role that connected.';

-- Connections of prescore say who they are when they are made (SESSION in tasks/database.py). With the rights of who made it:
-- whoever may write rows may have this noted.
CREATE FUNCTION prescore.note_foreign_write() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('prescore.writer', true) IS DISTINCT FROM 'prescore' THEN
        INSERT INTO prescore.foreign_writes (pipeline, storage_id)
        SELECT s.pipeline, s.storage_id FROM prescore.storages AS s
        WHERE TG_TABLE_NAME IN (s.pipeline, s.pipeline || '_' || s.storage_id)
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION prescore.note_foreign_write() IS 'Trigger of the rows of a pipeline and of each storage: notes that somebody else wrote into it.';

CREATE TABLE prescore.prediction_samples (
    pipeline      text        NOT NULL REFERENCES prescore.pipelines,
    generation_id bigint      NOT NULL,
    key           jsonb       NOT NULL,
    as_of         timestamptz NOT NULL,
    model_version integer     NOT NULL,
    predictions   jsonb       NOT NULL,
    PRIMARY KEY (pipeline, generation_id, key)
);
COMMENT ON TABLE prescore.prediction_samples IS 'A fixed random share of entities with each prediction they got, kept for labels that come later.';
COMMENT ON COLUMN prescore.prediction_samples.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.prediction_samples.generation_id IS 'Generation that the prediction was published in.';
COMMENT ON COLUMN prescore.prediction_samples.key IS 'Key columns and values of the entity.';
COMMENT ON COLUMN prescore.prediction_samples.as_of IS 'The instant that the prediction was computed at.';
COMMENT ON COLUMN prescore.prediction_samples.model_version IS 'Version of the model that made it.';
COMMENT ON COLUMN prescore.prediction_samples.predictions IS 'Prediction columns and values.';

-- Generations that were found bad after publication: who said so, why, when, what followed, and whether it was taken back.
CREATE TABLE prescore.quarantines (
    quarantine_id    bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline         text        NOT NULL REFERENCES prescore.pipelines,
    generation_id    bigint      NOT NULL REFERENCES prescore.generations,
    because          text        NOT NULL CHECK (because <> ''),
    effect           text        NOT NULL CHECK (effect IN ('rolled_back', 'masked', 'unseen')),
    returned_to      bigint,
    quarantined_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    quarantined_by   text        NOT NULL DEFAULT session_user,
    os_user          text,
    released_at      timestamptz,
    released_by      text,
    released_os_user text,
    released_because text,
    CONSTRAINT quarantines_returned CHECK ((effect = 'rolled_back') = (returned_to IS NOT NULL)),
    CONSTRAINT quarantines_released CHECK ((released_at IS NULL) = (released_by IS NULL))
);
CREATE UNIQUE INDEX quarantines_current ON prescore.quarantines (generation_id) WHERE released_at IS NULL;
CREATE INDEX quarantines_by_pipeline ON prescore.quarantines (pipeline, quarantine_id DESC);
CREATE INDEX quarantines_by_generation ON prescore.quarantines (generation_id);
COMMENT ON TABLE prescore.quarantines IS 'Generations found bad after publication, and by whom; a release ends a quarantine, the row stays.';
COMMENT ON COLUMN prescore.quarantines.quarantine_id IS 'Id of the quarantine.';
COMMENT ON COLUMN prescore.quarantines.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.quarantines.generation_id IS 'Generation that was found bad.';
COMMENT ON COLUMN prescore.quarantines.because IS 'Why, in the words of who said so; readers see it.';
COMMENT ON COLUMN prescore.quarantines.effect IS 'rolled_back: readers see the publication before; masked: its rows have no prediction until the next run; unseen: no reader saw it any more.';
COMMENT ON COLUMN prescore.quarantines.returned_to IS 'Generation that head returned to; NULL unless rolled back.';
COMMENT ON COLUMN prescore.quarantines.quarantined_at IS 'When, by the real clock.';
COMMENT ON COLUMN prescore.quarantines.quarantined_by IS 'Database role that said so.';
COMMENT ON COLUMN prescore.quarantines.os_user IS 'User of the operating system who did, where it is known.';
COMMENT ON COLUMN prescore.quarantines.released_at IS 'When it was taken back; NULL while it holds.';
COMMENT ON COLUMN prescore.quarantines.released_by IS 'Database role that took it back.';
COMMENT ON COLUMN prescore.quarantines.released_os_user IS 'User of the operating system who did, where it is known.';
COMMENT ON COLUMN prescore.quarantines.released_because IS 'Why it was taken back.';

-- What readers saw and when, and what was scored for past instants.
CREATE TABLE prescore.lineages (
    pipeline    text        NOT NULL REFERENCES prescore.pipelines,
    base        bigint      NOT NULL,
    as_of       timestamptz NOT NULL,
    storage_id  smallint,
    undone      boolean     NOT NULL DEFAULT false,
    complete    boolean     NOT NULL DEFAULT false,
    archived_at timestamptz,
    PRIMARY KEY (pipeline, base),
    UNIQUE (pipeline, storage_id),
    CONSTRAINT lineages_archived CHECK ((storage_id IS NULL) = (archived_at IS NOT NULL))
);
COMMENT ON TABLE prescore.lineages IS 'Full generations, each with the incremental ones that amend it, of pipelines that keep a history: where the rows are that readers saw.';
COMMENT ON COLUMN prescore.lineages.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.lineages.base IS 'The full generation that it begins with.';
COMMENT ON COLUMN prescore.lineages.as_of IS 'The instant that its run looked at the data from: that of each row that no run has scored since.';
COMMENT ON COLUMN prescore.lineages.storage_id IS 'Storage that still holds its rows; NULL once they are in the history.';
COMMENT ON COLUMN prescore.lineages.undone IS 'A rollback left it: no other one is told by its rows.';
COMMENT ON COLUMN prescore.lineages.complete IS 'All of its rows are in the history; otherwise those that the next lineage repeats are not.';
COMMENT ON COLUMN prescore.lineages.archived_at IS 'When its rows were moved to the history, by the real clock; NULL before.';

CREATE TABLE prescore.head_history (
    span_id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline            text        NOT NULL,
    seen_from           timestamptz NOT NULL,
    seen_until          timestamptz,
    base                bigint      NOT NULL,
    generation_id       bigint      NOT NULL,
    as_of               timestamptz NOT NULL,
    valid_since         bigint      NOT NULL,
    quarantined         bigint[]    NOT NULL,
    quarantined_because text[]      NOT NULL,
    data_as_of          timestamptz NOT NULL,
    aging_at            timestamptz NOT NULL,
    stale_at            timestamptz NOT NULL,
    expires_at          timestamptz NOT NULL,
    aging_after         interval    NOT NULL,
    stale_after         interval    NOT NULL,
    serve_stale_for     interval    NOT NULL,
    model_aging_at      timestamptz NOT NULL,
    model_stale_at      timestamptz NOT NULL,
    time_invariant      boolean     NOT NULL,
    serve_expired       boolean     NOT NULL,
    verdict             text        NOT NULL,
    reasons             text[]      NOT NULL,
    model               text        NOT NULL,
    model_version       integer     NOT NULL,
    FOREIGN KEY (pipeline, base) REFERENCES prescore.lineages
);
CREATE INDEX head_history_by_instant ON prescore.head_history (pipeline, seen_from DESC);
CREATE UNIQUE INDEX head_history_current ON prescore.head_history (pipeline) WHERE seen_until IS NULL;
COMMENT ON TABLE prescore.head_history IS 'What head said, and from when until when: one row per publication, rollback, quarantine and release of a pipeline that keeps a history.';
COMMENT ON COLUMN prescore.head_history.span_id IS 'Order in which head was moved.';
COMMENT ON COLUMN prescore.head_history.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.head_history.seen_from IS 'From when readers saw it, by prescore.clock().';
COMMENT ON COLUMN prescore.head_history.seen_until IS 'Until when; NULL while they do.';
COMMENT ON COLUMN prescore.head_history.base IS 'Lineage that was served.';
COMMENT ON COLUMN prescore.head_history.generation_id IS 'Generation that was served.';
COMMENT ON COLUMN prescore.head_history.as_of IS 'The instant that its run looked at the data from.';
COMMENT ON COLUMN prescore.head_history.valid_since IS 'Rows scored in an earlier generation were superseded.';
COMMENT ON COLUMN prescore.head_history.quarantined IS 'Generations that were known to be bad.';
COMMENT ON COLUMN prescore.head_history.quarantined_because IS 'Why, in the same order.';
COMMENT ON COLUMN prescore.head_history.data_as_of IS 'How old the data was that the predictions rest on: the oldest required source.';
COMMENT ON COLUMN prescore.head_history.aging_at IS 'From when the state is aging.';
COMMENT ON COLUMN prescore.head_history.stale_at IS 'From when the state is stale.';
COMMENT ON COLUMN prescore.head_history.expires_at IS 'From when the state is expired and scores are withheld.';
COMMENT ON COLUMN prescore.head_history.aging_after IS 'Contract: a row is aging when its data is this old.';
COMMENT ON COLUMN prescore.head_history.stale_after IS 'Contract: a row is stale when its data is this old.';
COMMENT ON COLUMN prescore.head_history.serve_stale_for IS 'Contract: how long stale predictions are still served.';
COMMENT ON COLUMN prescore.head_history.model_aging_at IS 'From when the model is old enough to warn.';
COMMENT ON COLUMN prescore.head_history.model_stale_at IS 'From when the model is too old.';
COMMENT ON COLUMN prescore.head_history.time_invariant IS 'Unchanged rows share the age of head.';
COMMENT ON COLUMN prescore.head_history.serve_expired IS 'Contract: on_expired = "serve", expired scores are still shown.';
COMMENT ON COLUMN prescore.head_history.verdict IS 'Worst verdict of the checks that flag a publication.';
COMMENT ON COLUMN prescore.head_history.reasons IS 'What the checks found, for readers.';
COMMENT ON COLUMN prescore.head_history.model IS 'Model that scored.';
COMMENT ON COLUMN prescore.head_history.model_version IS 'Version of that model.';

CREATE TABLE prescore.backfills (
    generation_id bigint      PRIMARY KEY,
    pipeline      text        NOT NULL REFERENCES prescore.pipelines,
    as_of         timestamptz NOT NULL,
    status        text        NOT NULL CHECK (status IN ('running', 'done', 'failed', 'crashed', 'cancelled')),
    model         text        NOT NULL,
    model_version integer     NOT NULL,
    logic_digest  text        NOT NULL,
    population    bigint,
    rejected      bigint,
    key_checksum  numeric,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at      timestamptz,
    backend_pid   integer     NOT NULL,
    host          text        NOT NULL,
    process_id    integer     NOT NULL,
    message       text
);
CREATE UNIQUE INDEX backfills_done ON prescore.backfills (pipeline, as_of) WHERE status = 'done';
CREATE INDEX backfills_by_instant ON prescore.backfills (pipeline, as_of, generation_id);
COMMENT ON TABLE prescore.backfills IS 'One row per attempt to score a past instant; readers of the backfill see those that are done. No run, no publication and no check knows of them.';
COMMENT ON COLUMN prescore.backfills.generation_id IS 'Generation that its rows are scored in; never served.';
COMMENT ON COLUMN prescore.backfills.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.backfills.as_of IS 'The past instant that the data is looked at from.';
COMMENT ON COLUMN prescore.backfills.status IS 'running, or how it ended; done is written in the transaction of the rows.';
COMMENT ON COLUMN prescore.backfills.model IS 'Model that scored.';
COMMENT ON COLUMN prescore.backfills.model_version IS 'Version of that model.';
COMMENT ON COLUMN prescore.backfills.logic_digest IS 'Logic digest of the declaration that was scored.';
COMMENT ON COLUMN prescore.backfills.population IS 'Entities of the instant, rejected ones included.';
COMMENT ON COLUMN prescore.backfills.rejected IS 'Entities that could not be scored.';
COMMENT ON COLUMN prescore.backfills.key_checksum IS 'Sum of the 64-bit hashes of their keys.';
COMMENT ON COLUMN prescore.backfills.started_at IS 'When it was begun, by the real clock.';
COMMENT ON COLUMN prescore.backfills.ended_at IS 'When it ended, by the real clock.';
COMMENT ON COLUMN prescore.backfills.backend_pid IS 'Backend that holds the lock of the instant.';
COMMENT ON COLUMN prescore.backfills.host IS 'Machine that it was started on.';
COMMENT ON COLUMN prescore.backfills.process_id IS 'Process on that machine.';
COMMENT ON COLUMN prescore.backfills.message IS 'How it ended, in a sentence.';

-- Entities that a pipeline was told to forget: digests of their keys, and what was removed where; never the keys.
CREATE TABLE prescore.erasures (
    erasure_id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline         text        NOT NULL REFERENCES prescore.pipelines,
    salt             bytea       NOT NULL,
    digest           bytea       NOT NULL,
    status           text        NOT NULL DEFAULT 'begun' CHECK (status IN ('begun', 'finished')),
    receipt          jsonb       NOT NULL DEFAULT '{}',
    begun_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    begun_by         text        NOT NULL DEFAULT session_user,
    os_user          text,
    finished_at      timestamptz,
    released_at      timestamptz,
    released_by      text,
    released_os_user text,
    CONSTRAINT erasures_finished CHECK ((status = 'finished') = (finished_at IS NOT NULL)),
    CONSTRAINT erasures_released CHECK ((released_at IS NULL) = (released_by IS NULL))
);
CREATE UNIQUE INDEX erasures_current ON prescore.erasures (pipeline, digest) WHERE released_at IS NULL;
COMMENT ON TABLE prescore.erasures IS 'Entities that pipelines were told to forget, by digest, with a receipt; a release ends an erasure, the row stays.';
COMMENT ON COLUMN prescore.erasures.erasure_id IS 'Id of the erasure.';
COMMENT ON COLUMN prescore.erasures.pipeline IS 'Pipeline that keeps the entity out.';
COMMENT ON COLUMN prescore.erasures.salt IS 'What is hashed before each key; the same for all erasures of a pipeline.';
COMMENT ON COLUMN prescore.erasures.digest IS 'SHA-256 of salt and key: each column as text, behind its length and a colon.';
COMMENT ON COLUMN prescore.erasures.status IS 'begun: kept out, and not yet gone from everywhere (forget it again to finish); finished.';
COMMENT ON COLUMN prescore.erasures.receipt IS 'What was removed where, in numbers, and what could not be; never the key.';
COMMENT ON COLUMN prescore.erasures.begun_at IS 'When it was asked for first, by the real clock.';
COMMENT ON COLUMN prescore.erasures.begun_by IS 'Database role that asked for it.';
COMMENT ON COLUMN prescore.erasures.os_user IS 'User of the operating system who did, where it is known.';
COMMENT ON COLUMN prescore.erasures.finished_at IS 'When it was last gone from everywhere; NULL until then.';
COMMENT ON COLUMN prescore.erasures.released_at IS 'When the entity was let in again; NULL while it is kept out.';
COMMENT ON COLUMN prescore.erasures.released_by IS 'Database role that let it in.';
COMMENT ON COLUMN prescore.erasures.released_os_user IS 'User of the operating system who did, where it is known.';

-- A lookup asks this only when there is no row: it reads head with the rights of its owner, in the snapshot of the
-- statement that asks, since a reader may read the schema predictions and nothing else.
CREATE FUNCTION prescore.why_missing(pipeline text) RETURNS text[]
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        (SELECT ARRAY[format(
            'missing: not among the entities of generation %s as of %s UTC (data_as_of %s UTC): born after data_as_of, or never in the population',
            h.generation_id, to_char(h.as_of AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
            to_char(h.data_as_of AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))]
         FROM prescore.head AS h WHERE h.pipeline = $1),
        ARRAY['missing: nothing was published yet'])
$$;
COMMENT ON FUNCTION prescore.why_missing(text) IS 'Why a lookup finds no row, for its reasons.';

-- A lookup in the past asks this only when it finds no row: it reads what head said with the rights of its owner.
CREATE FUNCTION prescore.why_unseen(pipeline text, seen_at timestamptz) RETURNS text[]
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        (SELECT ARRAY[format('missing: not among the entities of generation %s as of %s UTC', s.generation_id,
                             to_char(s.as_of AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))]
         FROM prescore.head_history AS s
         WHERE s.pipeline = $1 AND s.seen_from <= $2 AND (s.seen_until > $2 OR s.seen_until IS NULL)
         ORDER BY s.seen_from DESC LIMIT 1),
        (SELECT ARRAY[format('not_kept: what readers saw is kept since %s UTC, with gaps where it was not',
                             to_char(min(s.seen_from) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))]
         FROM prescore.head_history AS s
         WHERE s.pipeline = $1
         HAVING count(*) > 0),
        ARRAY['not_kept: no history is kept'])
$$;
COMMENT ON FUNCTION prescore.why_unseen(text, timestamptz) IS 'Why a lookup in the past finds no row: its state and reasons.';

-- What every run checked and found.
CREATE TABLE prescore.checks (
    run_id     bigint           NOT NULL REFERENCES prescore.runs ON DELETE CASCADE,
    pipeline   text             NOT NULL,
    check_id   text             NOT NULL,
    code       text             NOT NULL,
    class      text             NOT NULL CHECK (class IN ('guard', 'gauge', 'clock')),
    subject    text             NOT NULL DEFAULT '',
    verdict    text             NOT NULL CHECK (verdict IN ('pass', 'warn', 'fail', 'unknown', 'skipped')),
    observed   double precision,
    warn_limit double precision,
    fail_limit double precision,
    unit       text,
    n          bigint,
    warn_until timestamptz,
    fail_until timestamptz,
    reason     text             NOT NULL,
    checked_at timestamptz      NOT NULL DEFAULT clock_timestamp(),
    effective   text    NOT NULL CONSTRAINT checks_effective CHECK (effective IN ('pass', 'warn', 'fail', 'skipped')),
    disposition text    CONSTRAINT checks_disposition
                        CHECK (disposition IN ('publish', 'publish_flagged', 'hold', 'abort')),
    followups   text[]  NOT NULL DEFAULT '{}',
    waived      boolean NOT NULL DEFAULT false,
    evidence    jsonb   NOT NULL DEFAULT '{}',
    PRIMARY KEY (run_id, check_id, subject)
);
CREATE INDEX checks_by_pipeline ON prescore.checks (pipeline, run_id DESC);
COMMENT ON TABLE prescore.checks IS 'Every check of every run with its verdict; a check that did not run is listed as unknown.';
COMMENT ON COLUMN prescore.checks.run_id IS 'Run that asked.';
COMMENT ON COLUMN prescore.checks.pipeline IS 'Pipeline of the run.';
COMMENT ON COLUMN prescore.checks.check_id IS 'Id of the check, for example source.age.';
COMMENT ON COLUMN prescore.checks.code IS 'Letter code of the kind of staleness, for example S1.';
COMMENT ON COLUMN prescore.checks.class IS 'guard may block, gauge flags, clock bounds the time until which predictions are good.';
COMMENT ON COLUMN prescore.checks.subject IS 'What was looked at: a source, a column, or empty for the whole run.';
COMMENT ON COLUMN prescore.checks.verdict IS 'pass, warn, fail, unknown (never a pass) or skipped.';
COMMENT ON COLUMN prescore.checks.observed IS 'What was measured, in the unit beside it.';
COMMENT ON COLUMN prescore.checks.warn_limit IS 'Limit from which the verdict is warn.';
COMMENT ON COLUMN prescore.checks.fail_limit IS 'Limit from which the verdict is fail.';
COMMENT ON COLUMN prescore.checks.unit IS 'Unit of observed and of the limits.';
COMMENT ON COLUMN prescore.checks.n IS 'How many rows the measurement rests on.';
COMMENT ON COLUMN prescore.checks.warn_until IS 'Clock checks: from this instant the verdict is warn.';
COMMENT ON COLUMN prescore.checks.fail_until IS 'Clock checks: from this instant the verdict is fail.';
COMMENT ON COLUMN prescore.checks.reason IS 'The finding in a sentence.';
COMMENT ON COLUMN prescore.checks.checked_at IS 'When it was checked, by the real clock.';
COMMENT ON COLUMN prescore.checks.effective IS 'What the verdict counts as: persistence, the declared meaning of unknown and escalation considered.';
COMMENT ON COLUMN prescore.checks.disposition IS 'What this finding alone would have follow; NULL for runs before this was kept.';
COMMENT ON COLUMN prescore.checks.followups IS 'What has to happen next: refresh_source, rescore, retrain, investigate.';
COMMENT ON COLUMN prescore.checks.waived IS 'A person waived the verdict for this run; it is still what it is.';
COMMENT ON COLUMN prescore.checks.evidence IS 'Further numbers behind the verdict; never values of the data.';

-- Verdicts that a person took upon themselves.
CREATE TABLE prescore.waivers (
    run_id       bigint      NOT NULL,
    check_id     text        NOT NULL,
    subject      text        NOT NULL,
    first_run_id bigint      NOT NULL,
    waived_by    text        NOT NULL DEFAULT session_user,
    os_user      text,
    because      text        NOT NULL CHECK (because <> ''),
    waived_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    until        timestamptz NOT NULL,
    PRIMARY KEY (run_id, check_id, subject),
    FOREIGN KEY (run_id, check_id, subject) REFERENCES prescore.checks ON DELETE CASCADE
);
COMMENT ON TABLE prescore.waivers IS 'Verdicts that a person waived, one row per run and finding; the finding itself is stored as it is.';
COMMENT ON COLUMN prescore.waivers.run_id IS 'Run whose publication rests on the waiver.';
COMMENT ON COLUMN prescore.waivers.check_id IS 'Check whose failure was waived.';
COMMENT ON COLUMN prescore.waivers.subject IS 'What it was about: a source, a column, or empty for the whole run.';
COMMENT ON COLUMN prescore.waivers.first_run_id IS 'Run in which the person waived it; an incremental run that amends those rows keeps the waiver.';
COMMENT ON COLUMN prescore.waivers.waived_by IS 'Database role that waived it.';
COMMENT ON COLUMN prescore.waivers.os_user IS 'Who did, where it is known: the user of the operating system, or whom the form on the page of Prefect names.';
COMMENT ON COLUMN prescore.waivers.because IS 'Why, in their words.';
COMMENT ON COLUMN prescore.waivers.waived_at IS 'When they did, by the real clock.';
COMMENT ON COLUMN prescore.waivers.until IS 'From then on predictions that rest on it are stale: the next deadline, or [manual] lifetime.';

-- What each run's columns looked like, counted into the frozen bins of its model: the memory that drift is judged with.
CREATE TABLE prescore.profiles (
    run_id        bigint           NOT NULL REFERENCES prescore.runs ON DELETE CASCADE,
    kind          text             NOT NULL CHECK (kind IN ('feature', 'output')),
    name          text             NOT NULL,
    pipeline      text             NOT NULL,
    generation_id bigint,
    model         text             NOT NULL,
    model_version integer          NOT NULL,
    rows          bigint           NOT NULL,
    nulls         bigint           NOT NULL DEFAULT 0,
    nans          bigint           NOT NULL DEFAULT 0,
    infinities    bigint           NOT NULL DEFAULT 0,
    under         bigint           NOT NULL DEFAULT 0,
    over          bigint           NOT NULL DEFAULT 0,
    unseen        bigint,
    minimum       double precision,
    maximum       double precision,
    mean          double precision,
    m2            double precision,
    counts        bigint[]         NOT NULL DEFAULT '{}',
    sums          double precision[],
    digest        numeric          NOT NULL DEFAULT 0,
    tails         bigint           NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, kind, name)
);
CREATE INDEX profiles_by_pipeline ON prescore.profiles (pipeline, run_id DESC);
COMMENT ON TABLE prescore.profiles IS 'One row per run and column: its values counted into the bins that were frozen when the model was trained.';
COMMENT ON COLUMN prescore.profiles.run_id IS 'Run that counted.';
COMMENT ON COLUMN prescore.profiles.kind IS 'feature: as the feature query returns it; output: as it is predicted.';
COMMENT ON COLUMN prescore.profiles.name IS 'Name of the column.';
COMMENT ON COLUMN prescore.profiles.pipeline IS 'Pipeline of the run.';
COMMENT ON COLUMN prescore.profiles.generation_id IS 'Generation that the run scored in; published only when the run says so.';
COMMENT ON COLUMN prescore.profiles.model IS 'Model whose bins were used.';
COMMENT ON COLUMN prescore.profiles.model_version IS 'Version of that model: counts of two versions cannot be compared.';
COMMENT ON COLUMN prescore.profiles.rows IS 'Values that were counted, of every kind.';
COMMENT ON COLUMN prescore.profiles.nulls IS 'NULL values.';
COMMENT ON COLUMN prescore.profiles.nans IS 'NaN values.';
COMMENT ON COLUMN prescore.profiles.infinities IS 'Infinite values.';
COMMENT ON COLUMN prescore.profiles.under IS 'Values below everything that training saw.';
COMMENT ON COLUMN prescore.profiles.over IS 'Values above everything that training saw.';
COMMENT ON COLUMN prescore.profiles.unseen IS 'Categories that training did not see, and numbers between its values that no bin holds; NULL where that is unknown.';
COMMENT ON COLUMN prescore.profiles.minimum IS 'Smallest finite value.';
COMMENT ON COLUMN prescore.profiles.maximum IS 'Largest finite value.';
COMMENT ON COLUMN prescore.profiles.mean IS 'Mean of the finite values.';
COMMENT ON COLUMN prescore.profiles.m2 IS 'Sum of the squared distances from the mean.';
COMMENT ON COLUMN prescore.profiles.counts IS 'Values in each bin, in the order of the bins of the model: single values or categories first, then ranges.';
COMMENT ON COLUMN prescore.profiles.sums IS 'Outputs: the sum of the values in each bin.';
COMMENT ON COLUMN prescore.profiles.digest IS 'Order-independent fingerprint of the values: equal when nothing about the column changed.';
COMMENT ON COLUMN prescore.profiles.tails IS 'Numbers outside the quantiles 0.001 and 0.999 of training, those under and over included.';

-- Shards: key ranges of a full run, each scored and written in a transaction of its own.
CREATE TABLE prescore.shards (
    run_id        bigint      NOT NULL REFERENCES prescore.runs ON DELETE CASCADE,
    shard         integer     NOT NULL CHECK (shard > 0),
    pipeline      text        NOT NULL,
    storage_id    smallint    NOT NULL,
    lower         text,
    upper         text,
    keys          bigint      NOT NULL,
    key_checksum  numeric     NOT NULL,
    as_of         timestamptz NOT NULL,
    watermark     timestamptz NOT NULL,
    data_as_of    timestamptz NOT NULL,
    state         text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'finished')),
    attempt       integer     NOT NULL DEFAULT 0,
    owner         text,
    backend_pid   integer,
    backend_start timestamptz,
    started_at    timestamptz,
    finished_at   timestamptz,
    scored_by     bigint,
    rows          bigint,
    rejected      bigint,
    counted       text,
    PRIMARY KEY (run_id, shard),
    CHECK ((state = 'finished') = (counted IS NOT NULL))
);
CREATE INDEX shards_by_storage ON prescore.shards (pipeline, storage_id);
COMMENT ON TABLE prescore.shards IS 'One row per shard of what the storages hold: a range of keys that was, or is to be, scored in a transaction of its own.';
COMMENT ON COLUMN prescore.shards.run_id IS 'Run that the shard belongs to; one that goes on where another ended takes over its shards.';
COMMENT ON COLUMN prescore.shards.shard IS 'Position among the shards of the run, from 1, in the order of the keys.';
COMMENT ON COLUMN prescore.shards.pipeline IS 'Pipeline that is run.';
COMMENT ON COLUMN prescore.shards.storage_id IS 'Storage that its rows are written into.';
COMMENT ON COLUMN prescore.shards.lower IS 'Smallest first key column that belongs to it, as text; NULL without one.';
COMMENT ON COLUMN prescore.shards.upper IS 'First key column from which on keys belong to the next shard, as text; NULL without one.';
COMMENT ON COLUMN prescore.shards.keys IS 'Entities of the population in the range.';
COMMENT ON COLUMN prescore.shards.key_checksum IS 'Sum of the 64-bit hashes of their keys.';
COMMENT ON COLUMN prescore.shards.as_of IS 'The instant that its rows are computed at.';
COMMENT ON COLUMN prescore.shards.watermark IS 'Changes since this instant are not in its rows.';
COMMENT ON COLUMN prescore.shards.data_as_of IS 'How old the data is that its rows rest on: the oldest required source.';
COMMENT ON COLUMN prescore.shards.state IS 'open, or finished: written in the transaction of the rows, so that both are there or neither.';
COMMENT ON COLUMN prescore.shards.attempt IS 'How many workers began it.';
COMMENT ON COLUMN prescore.shards.owner IS 'Worker that began it last: host and process.';
COMMENT ON COLUMN prescore.shards.backend_pid IS 'Backend that writes for that worker.';
COMMENT ON COLUMN prescore.shards.backend_start IS 'When that backend started; pids are used again.';
COMMENT ON COLUMN prescore.shards.started_at IS 'When it was begun last, by the real clock.';
COMMENT ON COLUMN prescore.shards.finished_at IS 'When its rows were written, by the real clock.';
COMMENT ON COLUMN prescore.shards.scored_by IS 'Run that scored it; another one than run_id when it was kept.';
COMMENT ON COLUMN prescore.shards.rows IS 'Rows written, rejected ones included.';
COMMENT ON COLUMN prescore.shards.rejected IS 'Entities that could not be scored.';
COMMENT ON COLUMN prescore.shards.counted IS 'What was counted on the way, as JSON: small, and adds up over shards to what one stream counts.';

-- Is what is served within its promise, and did a scheduled run not happen? Judged by the database clock alone, so it
-- stays true while no process of ours runs.
CREATE VIEW prescore.pipeline_health AS
SELECT p.pipeline,
       t.state,
       coalesce(d.overdue, false) AS overdue,
       d.overdue_since,
       d.next_tick,
       p.pinned_at IS NOT NULL AS pinned,
       h.generation_id,
       h.published_at,
       c.now - h.data_as_of AS age,
       h.data_as_of,
       least(h.aging_at, h.model_aging_at) AS aging_at,
       least(h.stale_at, h.model_stale_at) AS stale_at,
       h.expires_at,
       h.rows,
       h.model,
       h.model_version,
       coalesce(a.version <> h.model_version, false) AS model_pending,
       coalesce(h.reasons, '{}') AS reasons,
       s.run_id AS last_scheduled_run_id,
       s.started_at AS last_scheduled_run_at,
       s.status AS last_scheduled_status,
       r.run_id AS last_run_id,
       r.started_at AS last_run_at,
       r.trigger AS last_run_trigger,
       r.status AS last_run_status,
       r.message AS last_run_message,
       coalesce(f.failing_checks, '{}') AS failing_checks,
       coalesce(f.warning_checks, '{}') AS warning_checks,
       coalesce(f.followups, '{}') AS followups,
       f.last_check_at,
       CASE t.state
           WHEN 'expired' THEN h.expires_at
           WHEN 'stale' THEN least(h.stale_at, h.model_stale_at)
           WHEN 'aging' THEN CASE WHEN h.verdict <> 'pass' THEN least(g.clock_at, h.aging_at, h.model_aging_at)
                                  ELSE least(h.aging_at, h.model_aging_at) END
           WHEN 'fresh' THEN g.clock_at
           WHEN 'quarantined' THEN coalesce(b.quarantined_at, g.quarantined_at)
       END AS state_since,
       g.run_id AS served_run_id,
       coalesce(w.waived_checks, '{}') AS waived_checks,
       u.hung_run_id,
       d.next_full,
       d.next_incremental
FROM prescore.pipelines AS p
CROSS JOIN (SELECT prescore.clock() AS now) AS c
LEFT JOIN prescore.head AS h ON h.pipeline = p.pipeline
LEFT JOIN LATERAL (
    SELECT max(q.quarantined_at) AS quarantined_at
    FROM prescore.generations AS q
    WHERE q.generation_id = ANY (h.quarantined) AND q.mode = 'full'
) AS b ON true
CROSS JOIN LATERAL (
    SELECT CASE
               WHEN h.pipeline IS NULL THEN 'missing'
               WHEN h.generation_id = ANY (h.quarantined) OR b.quarantined_at IS NOT NULL THEN 'quarantined'
               WHEN c.now < greatest(h.data_as_of, h.as_of) - interval '5 minutes' THEN 'clock_error'
               WHEN c.now >= h.expires_at THEN 'expired'
               WHEN c.now >= least(h.stale_at, h.model_stale_at) THEN 'stale'
               WHEN c.now >= least(h.aging_at, h.model_aging_at) OR h.verdict <> 'pass' THEN 'aging'
               ELSE 'fresh'
           END AS state
) AS t
LEFT JOIN prescore.aliases AS a ON a.model = p.model AND a.alias = p.alias AND a.until IS NULL
LEFT JOIN LATERAL (
    SELECT q.run_id, q.clock_at, o.quarantined_at
    FROM prescore.generations AS o
    JOIN prescore.runs AS q ON q.run_id = o.run_id
    WHERE o.generation_id = h.generation_id
) AS g ON true
LEFT JOIN LATERAL (
    SELECT bool_or(c.now >= e.next_tick + e.grace) AS overdue,
           min(e.next_tick) FILTER (WHERE c.now >= e.next_tick + e.grace) AS overdue_since,
           min(e.next_tick) AS next_tick,
           min(e.next_tick) FILTER (WHERE e.mode = 'full') AS next_full,
           min(e.next_tick) FILTER (WHERE e.mode = 'incremental') AS next_incremental
    FROM prescore.schedules AS e
    WHERE e.pipeline = p.pipeline
) AS d ON true
LEFT JOIN LATERAL (
    SELECT q.run_id, q.started_at, q.status
    FROM prescore.runs AS q
    WHERE q.pipeline = p.pipeline AND q.trigger = 'scheduled' AND q.status <> 'skipped'
    ORDER BY q.run_id DESC LIMIT 1
) AS s ON true
LEFT JOIN LATERAL (
    SELECT q.run_id, q.started_at, q.trigger, q.status, q.message
    FROM prescore.runs AS q
    WHERE q.pipeline = p.pipeline AND q.status <> 'skipped'
    ORDER BY q.run_id DESC LIMIT 1
) AS r ON true
LEFT JOIN LATERAL (
    SELECT q.run_id
    FROM prescore.runs AS q
    WHERE q.pipeline = p.pipeline AND q.status IN ('published', 'held', 'aborted')
    ORDER BY q.run_id DESC LIMIT 1
) AS j ON true
LEFT JOIN LATERAL (
    SELECT array_agg(l.label ORDER BY l.label) FILTER (WHERE k.effective = 'fail') AS failing_checks,
           array_agg(l.label ORDER BY l.label) FILTER (WHERE k.effective = 'warn') AS warning_checks,
           max(k.checked_at) AS last_check_at,
           (SELECT array_agg(DISTINCT n.followup ORDER BY n.followup)
            FROM prescore.checks AS m
            CROSS JOIN LATERAL unnest(m.followups) AS n (followup)
            WHERE m.run_id = j.run_id AND m.effective IN ('warn', 'fail')) AS followups
    FROM prescore.checks AS k
    CROSS JOIN LATERAL (SELECT concat_ws(' ', k.check_id, nullif(k.subject, '')) AS label) AS l
    WHERE k.run_id = j.run_id
) AS f ON true
LEFT JOIN LATERAL (
    SELECT array_agg(concat_ws(' ', k.check_id, nullif(k.subject, '')) ORDER BY k.check_id, k.subject) AS waived_checks
    FROM prescore.checks AS k
    WHERE k.run_id = g.run_id AND k.waived
) AS w ON true
LEFT JOIN LATERAL (
    SELECT max(q.run_id) AS hung_run_id
    FROM prescore.runs AS q
    WHERE q.pipeline = p.pipeline AND q.status = 'running' AND q.heartbeat_at <= statement_timestamp() - interval '5 minutes'
) AS u ON true;

COMMENT ON VIEW prescore.pipeline_health IS
    'One row per pipeline: its state now, whether a scheduled run is overdue, the last scheduled run against the last run of any kind, failing checks.';
COMMENT ON COLUMN prescore.pipeline_health.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.pipeline_health.state IS 'What a reader of an ordinary row sees; missing before the first publication.';
COMMENT ON COLUMN prescore.pipeline_health.overdue IS 'A scheduled tick and its grace have passed and no scheduled publication covers it.';
COMMENT ON COLUMN prescore.pipeline_health.overdue_since IS 'The first tick that was missed.';
COMMENT ON COLUMN prescore.pipeline_health.next_tick IS 'First tick of a schedule that no scheduled publication covers yet.';
COMMENT ON COLUMN prescore.pipeline_health.pinned IS 'A rollback refuses runs until somebody resumes the pipeline.';
COMMENT ON COLUMN prescore.pipeline_health.generation_id IS 'Id of the publication that is served; NULL before the first one.';
COMMENT ON COLUMN prescore.pipeline_health.published_at IS 'When it was published, by the real clock.';
COMMENT ON COLUMN prescore.pipeline_health.age IS 'How old the data is that the predictions rest on, now.';
COMMENT ON COLUMN prescore.pipeline_health.data_as_of IS 'How old that data is as an instant: the oldest required source.';
COMMENT ON COLUMN prescore.pipeline_health.aging_at IS 'From when the state is aging, the age of the model included.';
COMMENT ON COLUMN prescore.pipeline_health.stale_at IS 'From when the state is stale, the age of the model included.';
COMMENT ON COLUMN prescore.pipeline_health.expires_at IS 'From when predictions are withheld.';
COMMENT ON COLUMN prescore.pipeline_health.rows IS 'Rows that are served, rejected ones included.';
COMMENT ON COLUMN prescore.pipeline_health.model IS 'Model that scored.';
COMMENT ON COLUMN prescore.pipeline_health.model_version IS 'Version of that model.';
COMMENT ON COLUMN prescore.pipeline_health.model_pending IS 'The alias names another version than the one served; the next run will be full.';
COMMENT ON COLUMN prescore.pipeline_health.reasons IS 'What the checks of the publication found, for readers.';
COMMENT ON COLUMN prescore.pipeline_health.last_scheduled_run_id IS 'Last run that a schedule started; skipped ones do not count.';
COMMENT ON COLUMN prescore.pipeline_health.last_scheduled_run_at IS 'When it was started, by the real clock.';
COMMENT ON COLUMN prescore.pipeline_health.last_scheduled_status IS 'How it ended, or running.';
COMMENT ON COLUMN prescore.pipeline_health.last_run_id IS 'Last run, whoever started it; skipped ones do not count.';
COMMENT ON COLUMN prescore.pipeline_health.last_run_at IS 'When it was started, by the real clock.';
COMMENT ON COLUMN prescore.pipeline_health.last_run_trigger IS 'What started it: scheduled, manual, backfill or recovery.';
COMMENT ON COLUMN prescore.pipeline_health.last_run_status IS 'How it ended, or running.';
COMMENT ON COLUMN prescore.pipeline_health.last_run_message IS 'How it ended, in a sentence.';
COMMENT ON COLUMN prescore.pipeline_health.failing_checks IS 'Checks that count as failed in the last run that was judged: published, held or aborted.';
COMMENT ON COLUMN prescore.pipeline_health.warning_checks IS 'Checks of the same run that warn.';
COMMENT ON COLUMN prescore.pipeline_health.followups IS 'What has to happen next by the checks of that run: refresh_source, rescore, retrain or investigate.';
COMMENT ON COLUMN prescore.pipeline_health.last_check_at IS 'When a check last answered in that run, by the real clock.';
COMMENT ON COLUMN prescore.pipeline_health.state_since IS 'Since when the state is what it is; NULL where nobody can say.';
COMMENT ON COLUMN prescore.pipeline_health.served_run_id IS 'Run that made what is served.';
COMMENT ON COLUMN prescore.pipeline_health.waived_checks IS 'Checks of that run whose verdict somebody waived.';
COMMENT ON COLUMN prescore.pipeline_health.hung_run_id IS 'A run that is at work and gave no sign of life for five minutes, by the real clock.';
COMMENT ON COLUMN prescore.pipeline_health.next_full IS 'First tick of the full schedule that no scheduled publication covers yet.';
COMMENT ON COLUMN prescore.pipeline_health.next_incremental IS 'First tick of the incremental schedule that no scheduled publication covers yet.';

-- Health, finer than one row per pipeline: what metrics and dashboards read, with rights on these views and on no table.
-- They hold no key of an entity and no value of the data.
CREATE VIEW prescore.run_health AS
SELECT r.run_id,
       r.pipeline,
       r.mode,
       r.trigger,
       r.status,
       r.as_of,
       r.started_at,
       r.ended_at,
       extract(epoch FROM coalesce(r.ended_at, clock_timestamp()) - r.started_at)::double precision AS seconds,
       CASE r.status WHEN 'published' THEN r.generation_id END AS generation_id,
       r.model,
       r.model_version,
       r.population,
       r.scored,
       r.unchanged,
       r.rejected,
       r.rows_per_second,
       r.peak_memory,
       (r.cost ->> 'cpu_seconds')::double precision AS cpu_seconds,
       (r.cost ->> 'postgres_cpu_seconds')::double precision AS postgres_cpu_seconds,
       (r.cost -> 'per_million' ->> 'seconds')::double precision AS seconds_per_million,
       r.message
FROM prescore.runs AS r;

COMMENT ON VIEW prescore.run_health IS 'One row per run, with what it did and cost.';
COMMENT ON COLUMN prescore.run_health.run_id IS 'Id of the run.';
COMMENT ON COLUMN prescore.run_health.pipeline IS 'Pipeline that was run.';
COMMENT ON COLUMN prescore.run_health.mode IS 'full or incremental.';
COMMENT ON COLUMN prescore.run_health.trigger IS 'What started it: scheduled, manual, backfill or recovery.';
COMMENT ON COLUMN prescore.run_health.status IS 'running, or how it ended.';
COMMENT ON COLUMN prescore.run_health.as_of IS 'The instant that the data was looked at from.';
COMMENT ON COLUMN prescore.run_health.started_at IS 'When it was opened, by the real clock.';
COMMENT ON COLUMN prescore.run_health.ended_at IS 'When it ended, by the real clock; NULL while it is at work.';
COMMENT ON COLUMN prescore.run_health.seconds IS 'How long it took, or has been at work.';
COMMENT ON COLUMN prescore.run_health.generation_id IS 'Generation that it published; NULL where it did not.';
COMMENT ON COLUMN prescore.run_health.model IS 'Model that scored.';
COMMENT ON COLUMN prescore.run_health.model_version IS 'Version of that model.';
COMMENT ON COLUMN prescore.run_health.population IS 'Entities in the population: scored + unchanged + rejected.';
COMMENT ON COLUMN prescore.run_health.scored IS 'Entities that got a new prediction.';
COMMENT ON COLUMN prescore.run_health.unchanged IS 'Entities that the run did not need to score.';
COMMENT ON COLUMN prescore.run_health.rejected IS 'Entities that could not be scored.';
COMMENT ON COLUMN prescore.run_health.rows_per_second IS 'Rows read, scored and written per second.';
COMMENT ON COLUMN prescore.run_health.peak_memory IS 'Peak memory of the process in bytes.';
COMMENT ON COLUMN prescore.run_health.cpu_seconds IS 'CPU time of Python.';
COMMENT ON COLUMN prescore.run_health.postgres_cpu_seconds IS 'CPU time of the backends of PostgreSQL; NULL where it cannot be known.';
COMMENT ON COLUMN prescore.run_health.seconds_per_million IS 'Seconds that a million predictions take at the rate of this run; NULL where it made none.';
COMMENT ON COLUMN prescore.run_health.message IS 'How it ended, in a sentence.';

CREATE VIEW prescore.check_health AS
SELECT k.run_id,
       k.pipeline,
       r.started_at,
       k.check_id,
       k.code,
       k.class,
       k.subject,
       k.verdict,
       k.effective,
       k.disposition,
       k.waived,
       k.observed,
       k.warn_limit,
       k.fail_limit,
       k.unit,
       k.n,
       k.reason,
       k.followups,
       k.checked_at
FROM prescore.checks AS k
JOIN prescore.runs AS r ON r.run_id = k.run_id;

COMMENT ON VIEW prescore.check_health IS 'One row per check of a run and what it looked at: what was asked, answered, and follows.';
COMMENT ON COLUMN prescore.check_health.run_id IS 'Run that asked.';
COMMENT ON COLUMN prescore.check_health.pipeline IS 'Pipeline of the run.';
COMMENT ON COLUMN prescore.check_health.started_at IS 'When the run was opened, by the real clock.';
COMMENT ON COLUMN prescore.check_health.check_id IS 'Id of the check, for example source.age.';
COMMENT ON COLUMN prescore.check_health.code IS 'Letter code of the kind of staleness.';
COMMENT ON COLUMN prescore.check_health.class IS 'guard may block, gauge flags, clock bounds the time until which predictions are good.';
COMMENT ON COLUMN prescore.check_health.subject IS 'What was looked at: a source, a column, or empty for the whole run.';
COMMENT ON COLUMN prescore.check_health.verdict IS 'pass, warn, fail, unknown or skipped.';
COMMENT ON COLUMN prescore.check_health.effective IS 'What the verdict counts as: pass, warn, fail or skipped.';
COMMENT ON COLUMN prescore.check_health.disposition IS 'What this finding alone would have follow: publish, publish_flagged, hold or abort.';
COMMENT ON COLUMN prescore.check_health.waived IS 'A person waived the verdict for this run.';
COMMENT ON COLUMN prescore.check_health.observed IS 'What was measured, in the unit beside it.';
COMMENT ON COLUMN prescore.check_health.warn_limit IS 'Limit from which the verdict is warn.';
COMMENT ON COLUMN prescore.check_health.fail_limit IS 'Limit from which the verdict is fail.';
COMMENT ON COLUMN prescore.check_health.unit IS 'Unit of observed and of the limits.';
COMMENT ON COLUMN prescore.check_health.n IS 'How many rows the measurement rests on.';
COMMENT ON COLUMN prescore.check_health.reason IS 'The finding in a sentence.';
COMMENT ON COLUMN prescore.check_health.followups IS 'What has to happen next: refresh_source, rescore, retrain, investigate.';
COMMENT ON COLUMN prescore.check_health.checked_at IS 'When it was checked, by the real clock.';

CREATE VIEW prescore.schedule_health AS
SELECT s.pipeline,
       s.mode,
       s.crons,
       s.timezone,
       s.grace,
       s.next_tick,
       greatest(c.now - s.next_tick, interval '0') AS late,
       c.now >= s.next_tick + s.grace AS overdue
FROM prescore.schedules AS s
CROSS JOIN (SELECT prescore.clock() AS now) AS c;

COMMENT ON VIEW prescore.schedule_health IS 'One row per pipeline and mode with a schedule: how late is what it promised?';
COMMENT ON COLUMN prescore.schedule_health.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.schedule_health.mode IS 'full or incremental.';
COMMENT ON COLUMN prescore.schedule_health.crons IS 'Cron expressions, in the time zone beside them.';
COMMENT ON COLUMN prescore.schedule_health.timezone IS 'IANA time zone that the cron expressions are read in.';
COMMENT ON COLUMN prescore.schedule_health.grace IS 'How late a publication may be before the pipeline counts as overdue.';
COMMENT ON COLUMN prescore.schedule_health.next_tick IS 'First tick that no scheduled publication covers yet.';
COMMENT ON COLUMN prescore.schedule_health.late IS 'How long ago that tick was; zero while it is still to come.';
COMMENT ON COLUMN prescore.schedule_health.overdue IS 'That tick and the grace have passed.';

CREATE VIEW prescore.model_health AS
SELECT p.pipeline,
       p.model,
       p.alias,
       a.version AS aliased_version,
       a.since AS aliased_since,
       h.model_version AS served_version,
       m.created_at AS registered_at,
       m.train_data_until,
       c.now - m.train_data_until AS age,
       h.model_aging_at AS aging_at,
       h.model_stale_at AS stale_at,
       m.size_bytes
FROM prescore.pipelines AS p
CROSS JOIN (SELECT prescore.clock() AS now) AS c
LEFT JOIN prescore.head AS h ON h.pipeline = p.pipeline
LEFT JOIN prescore.aliases AS a ON a.model = p.model AND a.alias = p.alias AND a.until IS NULL
LEFT JOIN prescore.models AS m ON m.model = coalesce(h.model, p.model) AND m.version = coalesce(h.model_version, a.version);

COMMENT ON VIEW prescore.model_health IS 'One row per pipeline: the model version that is served, and the one that its alias names.';
COMMENT ON COLUMN prescore.model_health.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.model_health.model IS 'Model that the pipeline scores with.';
COMMENT ON COLUMN prescore.model_health.alias IS 'Alias that names the version to use.';
COMMENT ON COLUMN prescore.model_health.aliased_version IS 'Version that the alias names.';
COMMENT ON COLUMN prescore.model_health.aliased_since IS 'Since when it does.';
COMMENT ON COLUMN prescore.model_health.served_version IS 'Version whose predictions are served; NULL before the first publication.';
COMMENT ON COLUMN prescore.model_health.registered_at IS 'When the version that is served was registered; without a publication the one that the alias names.';
COMMENT ON COLUMN prescore.model_health.train_data_until IS 'End of the data that this version was fitted on.';
COMMENT ON COLUMN prescore.model_health.age IS 'How long ago that is.';
COMMENT ON COLUMN prescore.model_health.aging_at IS 'From when the model is old enough to warn.';
COMMENT ON COLUMN prescore.model_health.stale_at IS 'From when the model is too old.';
COMMENT ON COLUMN prescore.model_health.size_bytes IS 'Size of its bundle in bytes.';

-- From the catalogue, without a lock on what is measured: whoever looks never waits for a run, nor a run for them.
CREATE VIEW prescore.storage_health AS
SELECT s.pipeline,
       s.storage_id,
       s.role,
       s.generation_id,
       t.bytes,
       t.rows,
       t.dead_rows,
       CASE WHEN s.role = 'current' THEN coalesce(cardinality(h.quarantined), 0) ELSE 0 END AS quarantined_generations
FROM prescore.storages AS s
LEFT JOIN prescore.head AS h ON h.pipeline = s.pipeline
LEFT JOIN LATERAL (
    SELECT (c.relpages
            + coalesce((SELECT sum(x.relpages)
                        FROM pg_catalog.pg_index AS i
                        JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
                        WHERE i.indrelid = c.oid), 0)
            + coalesce((SELECT o.relpages FROM pg_catalog.pg_class AS o WHERE o.oid = c.reltoastrelid), 0)
           )::bigint * current_setting('block_size')::bigint AS bytes,
           nullif(c.reltuples, -1)::bigint AS rows,
           pg_catalog.pg_stat_get_dead_tuples(c.oid) AS dead_rows
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'prescore_rows' AND c.relname = s.pipeline || '_' || s.storage_id
) AS t ON true;

COMMENT ON VIEW prescore.storage_health IS 'One row per storage: what it holds, and how large it was when PostgreSQL last looked (ANALYZE, VACUUM, a new index).';
COMMENT ON COLUMN prescore.storage_health.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.storage_health.storage_id IS '1, 2 or 3: the partition prescore_rows.<pipeline>_<storage_id>.';
COMMENT ON COLUMN prescore.storage_health.role IS 'current: head reads it; previous: a rollback returns to it; next: cleared, or being filled.';
COMMENT ON COLUMN prescore.storage_health.generation_id IS 'Last generation published into it; NULL for next.';
COMMENT ON COLUMN prescore.storage_health.bytes IS 'Table, indexes and TOAST.';
COMMENT ON COLUMN prescore.storage_health.rows IS 'Rows, as the planner reckons; NULL before it was analysed.';
COMMENT ON COLUMN prescore.storage_health.dead_rows IS 'Rows that updates and deletes left behind, as PostgreSQL keeps count.';
COMMENT ON COLUMN prescore.storage_health.quarantined_generations IS 'Generations in what is served that were found bad: their rows are hidden from readers.';

CREATE VIEW prescore.installation_health AS
SELECT prescore.clock() AS now,
       current_setting('server_version') AS server_version,
       count(*) AS migrations,
       max(m.name) AS last_migration,
       max(m.applied_at) AS migrated_at
FROM prescore.migrations AS m;

COMMENT ON VIEW prescore.installation_health IS 'One row: the clock that freshness is judged by, the server, and which migrations the database has.';
COMMENT ON COLUMN prescore.installation_health.now IS 'The instant that freshness is judged at.';
COMMENT ON COLUMN prescore.installation_health.server_version IS 'Version of PostgreSQL.';
COMMENT ON COLUMN prescore.installation_health.migrations IS 'Number of migrations that were applied.';
COMMENT ON COLUMN prescore.installation_health.last_migration IS 'The last of them.';
COMMENT ON COLUMN prescore.installation_health.migrated_at IS 'When it was applied.';
