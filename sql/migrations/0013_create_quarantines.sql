-- Generations that were found bad after publication: who said so, why, when, what followed, and whether it was taken back.
-- Readers depend on head alone, so the reasons that they are shown stand there too.
CREATE TABLE prescore.quarantines (
    quarantine_id    bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline         text        NOT NULL REFERENCES prescore.pipelines,
    generation_id    bigint      NOT NULL REFERENCES prescore.generations,
    because          text        NOT NULL CHECK (because <> ''),
    effect           text        NOT NULL CHECK (effect IN ('rolled_back', 'masked', 'unseen')),
    returned_to      bigint,
    quarantined_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    quarantined_by   text        NOT NULL DEFAULT session_user,
    os_user          text,
    released_at      timestamptz,
    released_by      text,
    released_os_user text,
    released_because text,
    CONSTRAINT quarantines_returned CHECK ((effect = 'rolled_back') = (returned_to IS NOT NULL)),
    CONSTRAINT quarantines_released CHECK ((released_at IS NULL) = (released_by IS NULL))
);
CREATE UNIQUE INDEX quarantines_current ON prescore.quarantines (generation_id) WHERE released_at IS NULL;
CREATE INDEX quarantines_by_pipeline ON prescore.quarantines (pipeline, quarantine_id DESC);
COMMENT ON TABLE prescore.quarantines IS 'Generations found bad after publication, and by whom; a release ends a quarantine, the row stays.';
COMMENT ON COLUMN prescore.quarantines.quarantine_id IS 'Id of the quarantine.';
COMMENT ON COLUMN prescore.quarantines.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.quarantines.generation_id IS 'Generation that was found bad.';
COMMENT ON COLUMN prescore.quarantines.because IS 'Why, in the words of who said so; readers see it.';
COMMENT ON COLUMN prescore.quarantines.effect IS 'rolled_back: readers see the publication before; masked: its rows have no prediction until the next run; unseen: no reader saw it any more.';
COMMENT ON COLUMN prescore.quarantines.returned_to IS 'Generation that head returned to; NULL unless rolled back.';
COMMENT ON COLUMN prescore.quarantines.quarantined_at IS 'When, by the real clock.';
COMMENT ON COLUMN prescore.quarantines.quarantined_by IS 'Database role that said so.';
COMMENT ON COLUMN prescore.quarantines.os_user IS 'User of the operating system who did, where it is known.';
COMMENT ON COLUMN prescore.quarantines.released_at IS 'When it was taken back; NULL while it holds.';
COMMENT ON COLUMN prescore.quarantines.released_by IS 'Database role that took it back.';
COMMENT ON COLUMN prescore.quarantines.released_os_user IS 'User of the operating system who did, where it is known.';
COMMENT ON COLUMN prescore.quarantines.released_because IS 'Why it was taken back.';

ALTER TABLE prescore.generations ADD COLUMN quarantined_at timestamptz;
COMMENT ON COLUMN prescore.generations.quarantined_at IS 'Since when it is known to be bad; NULL otherwise.';

ALTER TABLE prescore.head ADD COLUMN quarantined_because text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN prescore.head.quarantined_because IS 'Why, for each of the quarantined generations, in the same order.';

ALTER TABLE prescore.pipelines ADD COLUMN views_digest text;
COMMENT ON COLUMN prescore.pipelines.views_digest IS 'SHA-256 of the statements that made its views and function; another one makes the next run replace them.';

-- A lookup asks this only when there is no row: it reads head with the rights of its owner, in the snapshot of the
-- statement that asks, since a reader may read the schema predictions and nothing else.
CREATE FUNCTION prescore.why_missing(pipeline text) RETURNS text[]
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        (SELECT ARRAY[format(
            'missing: not among the entities of generation %s as of %s UTC (data_as_of %s UTC): born after data_as_of, or never in the population',
            h.generation_id, to_char(h.as_of AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
            to_char(h.data_as_of AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))]
         FROM prescore.head AS h WHERE h.pipeline = $1),
        ARRAY['missing: nothing was published yet'])
$$;
COMMENT ON FUNCTION prescore.why_missing(text) IS 'Why a lookup finds no row, for its reasons.';
