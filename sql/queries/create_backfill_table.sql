-- Create the rows of past instants of a pipeline. An instant's rows stand together, in the order of the keys.
-- Fragments: backfill (table), key_definitions, output_definitions, key_names. Grain: no rows.
CREATE TABLE {backfill} (
    {key_definitions},
    as_of timestamptz NOT NULL,
    scored_in bigint NOT NULL,
    rejected text,
    {output_definitions},
    PRIMARY KEY (scored_in, {key_names})
);
COMMENT ON TABLE {backfill} IS 'Rows of past instants of a pipeline, which no reader was served; read the view in the schema predictions.'
