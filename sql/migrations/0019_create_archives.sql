-- Which publications are copied into the lake that [archive] declares, and which are still owed to it.
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
