-- Entities that a pipeline was told to forget: digests of their keys, and what was removed where; never the keys.
CREATE TABLE prescore.erasures (
    erasure_id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline         text        NOT NULL REFERENCES prescore.pipelines,
    salt             bytea       NOT NULL,
    digest           bytea       NOT NULL,
    status           text        NOT NULL DEFAULT 'begun' CHECK (status IN ('begun', 'finished')),
    receipt          jsonb       NOT NULL DEFAULT '{}',
    begun_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    begun_by         text        NOT NULL DEFAULT session_user,
    os_user          text,
    finished_at      timestamptz,
    released_at      timestamptz,
    released_by      text,
    released_os_user text,
    CONSTRAINT erasures_finished CHECK ((status = 'finished') = (finished_at IS NOT NULL)),
    CONSTRAINT erasures_released CHECK ((released_at IS NULL) = (released_by IS NULL))
);
CREATE UNIQUE INDEX erasures_current ON prescore.erasures (pipeline, digest) WHERE released_at IS NULL;
COMMENT ON TABLE prescore.erasures IS 'Entities that pipelines were told to forget, by digest, with a receipt; a release ends an erasure, the row stays.';
COMMENT ON COLUMN prescore.erasures.erasure_id IS 'Id of the erasure.';
COMMENT ON COLUMN prescore.erasures.pipeline IS 'Pipeline that keeps the entity out.';
COMMENT ON COLUMN prescore.erasures.salt IS 'What is hashed before each key; the same for all erasures of a pipeline.';
COMMENT ON COLUMN prescore.erasures.digest IS 'SHA-256 of salt and key: each column as text, behind its length and a colon.';
COMMENT ON COLUMN prescore.erasures.status IS 'begun: kept out, and not yet gone from everywhere (forget it again to finish); finished.';
COMMENT ON COLUMN prescore.erasures.receipt IS 'What was removed where, in numbers, and what could not be; never the key.';
COMMENT ON COLUMN prescore.erasures.begun_at IS 'When it was asked for first, by the real clock.';
COMMENT ON COLUMN prescore.erasures.begun_by IS 'Database role that asked for it.';
COMMENT ON COLUMN prescore.erasures.os_user IS 'User of the operating system who did, where it is known.';
COMMENT ON COLUMN prescore.erasures.finished_at IS 'When it was last gone from everywhere; NULL until then.';
COMMENT ON COLUMN prescore.erasures.released_at IS 'When the entity was let in again; NULL while it is kept out.';
COMMENT ON COLUMN prescore.erasures.released_by IS 'Database role that let it in.';
COMMENT ON COLUMN prescore.erasures.released_os_user IS 'User of the operating system who did, where it is known.';
