-- The model registry: immutable versions, their bundles in chunks, and aliases with their history.
CREATE TABLE prescore.models (
    model            text        NOT NULL,
    version          integer     NOT NULL CHECK (version > 0),
    digest           text        NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by       text        NOT NULL DEFAULT session_user,
    source           text        NOT NULL,
    train_data_until timestamptz NOT NULL,
    logic_digest     text,
    metrics          jsonb       NOT NULL DEFAULT '{}',
    environment      jsonb       NOT NULL DEFAULT '{}',
    signature        jsonb       NOT NULL DEFAULT '{}',
    probes           jsonb       NOT NULL DEFAULT '{}',
    trusted_pickle   boolean     NOT NULL DEFAULT false,
    size_bytes       bigint      NOT NULL,
    PRIMARY KEY (model, version),
    UNIQUE (model, digest)
);
COMMENT ON TABLE prescore.models IS 'One row per model version; a version never changes.';
COMMENT ON COLUMN prescore.models.model IS 'Name of the model.';
COMMENT ON COLUMN prescore.models.version IS 'Counts up from 1 for each model.';
COMMENT ON COLUMN prescore.models.digest IS 'SHA-256 of the bundle, checked on every load before anything is read from it.';
COMMENT ON COLUMN prescore.models.created_at IS 'When the version was registered.';
COMMENT ON COLUMN prescore.models.created_by IS 'Database role that registered it.';
COMMENT ON COLUMN prescore.models.source IS 'Where the version came from: a training run or a file.';
COMMENT ON COLUMN prescore.models.train_data_until IS 'End of the data that the model was fitted on; model age counts from here.';
COMMENT ON COLUMN prescore.models.logic_digest IS 'Logic digest of the pipeline that the model was trained with.';
COMMENT ON COLUMN prescore.models.metrics IS 'Metrics on the held-out slice, beside a naive baseline.';
COMMENT ON COLUMN prescore.models.environment IS 'Versions of Python and the libraries that made the model.';
COMMENT ON COLUMN prescore.models.signature IS 'Key, feature and prediction columns with their SQL types.';
COMMENT ON COLUMN prescore.models.probes IS 'What NULL, NaN, infinity and unseen categories gave at registration.';
COMMENT ON COLUMN prescore.models.trusted_pickle IS 'A person vouched for a pickle or joblib file.';
COMMENT ON COLUMN prescore.models.size_bytes IS 'Size of the bundle in bytes.';

CREATE TABLE prescore.model_chunks (
    model   text    NOT NULL,
    version integer NOT NULL,
    chunk   integer NOT NULL CHECK (chunk >= 0),
    data    bytea   NOT NULL,
    PRIMARY KEY (model, version, chunk),
    FOREIGN KEY (model, version) REFERENCES prescore.models ON DELETE CASCADE
);
ALTER TABLE prescore.model_chunks ALTER COLUMN data SET STORAGE EXTERNAL;
COMMENT ON TABLE prescore.model_chunks IS 'Bundles in chunks of at most 4 MiB; already compressed.';
COMMENT ON COLUMN prescore.model_chunks.model IS 'Name of the model.';
COMMENT ON COLUMN prescore.model_chunks.version IS 'Version of the model.';
COMMENT ON COLUMN prescore.model_chunks.chunk IS 'Position of the chunk, from 0.';
COMMENT ON COLUMN prescore.model_chunks.data IS 'Bytes of the chunk.';

CREATE TABLE prescore.aliases (
    model   text        NOT NULL,
    alias   text        NOT NULL,
    version integer     NOT NULL,
    since   timestamptz NOT NULL DEFAULT clock_timestamp(),
    until   timestamptz,
    set_by  text        NOT NULL DEFAULT session_user,
    because text        NOT NULL,
    FOREIGN KEY (model, version) REFERENCES prescore.models,
    CHECK (since <= until)
);
CREATE UNIQUE INDEX aliases_current ON prescore.aliases (model, alias) WHERE until IS NULL;
CREATE INDEX aliases_history ON prescore.aliases (model, alias, since);
COMMENT ON TABLE prescore.aliases IS 'Which version an alias named, and when: the current row has no end.';
COMMENT ON COLUMN prescore.aliases.model IS 'Name of the model.';
COMMENT ON COLUMN prescore.aliases.alias IS 'champion, challenger or another name of a role.';
COMMENT ON COLUMN prescore.aliases.version IS 'Version that the alias named.';
COMMENT ON COLUMN prescore.aliases.since IS 'From when the alias named this version.';
COMMENT ON COLUMN prescore.aliases.until IS 'Until when; NULL for the current row.';
COMMENT ON COLUMN prescore.aliases.set_by IS 'Database role that moved the alias.';
COMMENT ON COLUMN prescore.aliases.because IS 'Why it was moved.';
