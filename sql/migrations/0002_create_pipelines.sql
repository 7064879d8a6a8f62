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
    pinned_because  text
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
