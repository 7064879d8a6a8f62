-- How long a run may take, and who asked it to end.
ALTER TABLE prescore.runs
    ADD COLUMN max_duration    interval,
    ADD COLUMN cancel_asked_at timestamptz,
    ADD COLUMN cancel_asked_by text,
    ADD COLUMN cancel_because  text;
COMMENT ON COLUMN prescore.runs.max_duration IS 'How long it may take from started_at on: then it is ended, by itself or by the next run. NULL for runs of earlier revisions.';
COMMENT ON COLUMN prescore.runs.cancel_asked_at IS 'When somebody first asked it to end, by the real clock. From then on it cannot publish.';
COMMENT ON COLUMN prescore.runs.cancel_asked_by IS 'Who asked: user and machine, or role of the database.';
COMMENT ON COLUMN prescore.runs.cancel_because IS 'Why, in their words.';
