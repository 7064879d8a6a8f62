-- Create the history of a pipeline: rows that readers saw and that are in no storage any more.
-- The index holds the key alone, so that all versions of an entity share one entry.
-- Fragments: history, rows (tables), history_index (name), key_definitions, output_definitions, key_names. Grain: no rows.
CREATE TABLE {history} (
    {key_definitions},
    prescore_base bigint NOT NULL,
    as_of timestamptz,
    scored_in bigint NOT NULL,
    prescore_replaced_in bigint,
    rejected text,
    {output_definitions}
);
CREATE INDEX {history_index} ON {history} ({key_names});
COMMENT ON TABLE {history} IS 'Rows of a pipeline that readers saw and that were replaced; read the view in the schema predictions.'
