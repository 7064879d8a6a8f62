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
