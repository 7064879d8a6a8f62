-- Know what a storage holds without reading it: how old its rows are, and whether anybody else wrote into it.
ALTER TABLE prescore.storages
    ADD COLUMN oldest_as_of timestamptz,
    ADD COLUMN rejected     bigint;
COMMENT ON COLUMN prescore.storages.oldest_as_of IS 'No row in it is older than this instant; NULL where that is not known.';
COMMENT ON COLUMN prescore.storages.rejected IS 'At most so many of its rows have no prediction; NULL where that is not known.';

CREATE TABLE prescore.foreign_writes (
    pipeline    text        NOT NULL REFERENCES prescore.pipelines,
    storage_id  smallint    NOT NULL CHECK (storage_id BETWEEN 1 AND 3),
    written_xid xid8        NOT NULL DEFAULT pg_current_xact_id(),
    written_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    written_by  text        NOT NULL DEFAULT session_user,
    PRIMARY KEY (pipeline, storage_id, written_xid)
);
COMMENT ON TABLE prescore.foreign_writes IS 'Transactions of others than prescore that wrote into rows of a pipeline: everything is scored anew then.';
COMMENT ON COLUMN prescore.foreign_writes.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.foreign_writes.storage_id IS 'Storage that was written into; each of them when it was done through the table of all.';
COMMENT ON COLUMN prescore.foreign_writes.written_xid IS 'The transaction.';
COMMENT ON COLUMN prescore.foreign_writes.written_at IS 'When, by the real clock.';
COMMENT ON COLUMN prescore.foreign_writes.written_by IS 'Database role that connected.';

-- Connections of prescore say who they are when they are made (SESSION in tasks/database.py). With the rights of who made it:
-- whoever may write rows may have this noted.
CREATE FUNCTION prescore.note_foreign_write() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('prescore.writer', true) IS DISTINCT FROM 'prescore' THEN
        INSERT INTO prescore.foreign_writes (pipeline, storage_id)
        SELECT s.pipeline, s.storage_id FROM prescore.storages AS s
        WHERE TG_TABLE_NAME IN (s.pipeline, s.pipeline || '_' || s.storage_id)
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION prescore.note_foreign_write() IS 'Trigger of the rows of a pipeline and of each storage: notes that somebody else wrote into it.';
