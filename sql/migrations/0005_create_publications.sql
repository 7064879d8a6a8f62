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
    CHECK (data_as_of <= aging_at AND aging_at <= stale_at AND stale_at <= expires_at)
);
CREATE INDEX generations_by_pipeline ON prescore.generations (pipeline, generation_id DESC);
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
COMMENT ON COLUMN prescore.generations.time_invariant IS 'Features do not depend on as_of: unchanged rows share the age of head.';
COMMENT ON COLUMN prescore.generations.serve_expired IS 'Contract: on_expired = "serve", expired scores are still shown.';
COMMENT ON COLUMN prescore.generations.verdict IS 'Worst verdict of the checks that flag a publication.';
COMMENT ON COLUMN prescore.generations.reasons IS 'What the checks found, for readers.';
COMMENT ON COLUMN prescore.generations.model IS 'Model that scored.';
COMMENT ON COLUMN prescore.generations.model_version IS 'Version of that model.';
COMMENT ON COLUMN prescore.generations.logic_digest IS 'Logic digest of the declaration that was run.';
COMMENT ON COLUMN prescore.generations.rows IS 'Rows of the publication, rejected ones included.';
COMMENT ON COLUMN prescore.generations.key_checksum IS 'Sum of the 64-bit hashes of their keys.';

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
COMMENT ON COLUMN prescore.head.time_invariant IS 'Features do not depend on as_of: unchanged rows share the age of head.';
COMMENT ON COLUMN prescore.head.serve_expired IS 'Contract: on_expired = "serve", expired scores are still shown.';
COMMENT ON COLUMN prescore.head.verdict IS 'Worst verdict of the checks that flag a publication.';
COMMENT ON COLUMN prescore.head.reasons IS 'What the checks found, for readers.';
COMMENT ON COLUMN prescore.head.model IS 'Model that scored.';
COMMENT ON COLUMN prescore.head.model_version IS 'Version of that model.';
COMMENT ON COLUMN prescore.head.logic_digest IS 'Logic digest of the declaration that was run.';
COMMENT ON COLUMN prescore.head.rows IS 'Rows of the publication, rejected ones included.';
COMMENT ON COLUMN prescore.head.key_checksum IS 'Sum of the 64-bit hashes of their keys.';

CREATE TABLE prescore.storages (
    pipeline      text     NOT NULL REFERENCES prescore.pipelines,
    storage_id    smallint NOT NULL CHECK (storage_id BETWEEN 1 AND 3),
    role          text     NOT NULL CHECK (role IN ('current', 'previous', 'next')),
    generation_id bigint,
    retired_at    timestamptz,
    retired_xid   xid8,
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
