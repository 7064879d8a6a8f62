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
