-- Create the rows of a pipeline: one table, its three fixed storages, the key in each of them.
-- Nothing is attached, detached, dropped or renamed afterwards: cached plans of readers would see empty results.
-- Fragments: rows, storage_one, storage_two, storage_three (tables), key_definitions, output_definitions, key_names.
-- Grain: no rows.
CREATE TABLE {rows} (
    {key_definitions},
    storage_id smallint NOT NULL,
    as_of timestamptz NOT NULL,
    scored_in bigint NOT NULL,
    rejected text,
    {output_definitions},
    PRIMARY KEY ({key_names}, storage_id)
) PARTITION BY LIST (storage_id);
CREATE TABLE {storage_one} PARTITION OF {rows} (storage_id DEFAULT 1) FOR VALUES IN (1);
CREATE TABLE {storage_two} PARTITION OF {rows} (storage_id DEFAULT 2) FOR VALUES IN (2);
CREATE TABLE {storage_three} PARTITION OF {rows} (storage_id DEFAULT 3) FOR VALUES IN (3);
COMMENT ON TABLE {rows} IS 'Rows of a pipeline in three fixed storages; read the view in the schema predictions.';
COMMENT ON COLUMN {rows}.storage_id IS 'Storage that holds the row; head names the one that is served.';
COMMENT ON COLUMN {rows}.as_of IS 'The instant that the prediction was computed at.';
COMMENT ON COLUMN {rows}.scored_in IS 'Generation that the row was scored in.';
COMMENT ON COLUMN {rows}.rejected IS 'Why the entity could not be scored; NULL for a prediction.'
