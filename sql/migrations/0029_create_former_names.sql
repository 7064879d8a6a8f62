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
