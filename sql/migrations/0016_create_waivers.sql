-- Who waived which verdict of which run, and the texts of the declarations that runs were judged under.
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
COMMENT ON COLUMN prescore.waivers.os_user IS 'User of the operating system who did, where it is known.';
COMMENT ON COLUMN prescore.waivers.because IS 'Why, in their words.';
COMMENT ON COLUMN prescore.waivers.waived_at IS 'When they did, by the real clock.';
COMMENT ON COLUMN prescore.waivers.until IS 'From then on predictions that rest on it are stale: the next deadline, or [manual] lifetime.';

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
INSERT INTO prescore.contracts (pipeline, digest, text, first_used_at)
SELECT pipeline, contract_digest, contract_text, registered_at FROM prescore.pipelines;
