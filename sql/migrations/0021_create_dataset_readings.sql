-- What each publication has read of the Parquet files that its features come from.
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
