-- Create the rows of a pipeline: one table, its three fixed storages, the key in each of them.
-- Nothing is attached, detached, dropped or renamed afterwards: cached plans of readers would see empty results.
-- Fragments: rows, storage_one, storage_two, storage_three (tables), key_definitions, output_definitions (each behind a comma), key_names.
-- Grain: no rows.
CREATE TABLE {rows} (
    {key_definitions},
    storage_id smallint NOT NULL,
    as_of timestamptz NOT NULL,
    scored_in bigint NOT NULL,
    rejected text{output_definitions},
    PRIMARY KEY ({key_names}, storage_id)
) PARTITION BY LIST (storage_id);
CREATE TABLE {storage_one} PARTITION OF {rows} (storage_id DEFAULT 1) FOR VALUES IN (1);
CREATE TABLE {storage_two} PARTITION OF {rows} (storage_id DEFAULT 2) FOR VALUES IN (2);
CREATE TABLE {storage_three} PARTITION OF {rows} (storage_id DEFAULT 3) FOR VALUES IN (3);
COMMENT ON TABLE {rows} IS 'Rows of a pipeline in three fixed storages; read the view in the schema predictions.';
COMMENT ON TABLE {storage_one} IS 'Storage 1 of a pipeline; prescore.storages says what it holds.';
COMMENT ON TABLE {storage_two} IS 'Storage 2 of a pipeline; prescore.storages says what it holds.';
COMMENT ON TABLE {storage_three} IS 'Storage 3 of a pipeline; prescore.storages says what it holds.'
