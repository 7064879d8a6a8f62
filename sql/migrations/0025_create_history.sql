-- What readers saw and when, and what was scored for past instants.
ALTER TABLE prescore.pipelines ADD COLUMN history_keep interval;
COMMENT ON COLUMN prescore.pipelines.history_keep IS 'How long what readers saw is kept, [history] keep of the last run; NULL where no history is kept.';

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
