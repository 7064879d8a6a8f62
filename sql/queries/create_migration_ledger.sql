-- Create the schemas and the ledger of migrations in a database that never had them.
-- Parameters: none. Grain: no rows. Several statements, because a ledger has to be there before the first entry.
CREATE SCHEMA IF NOT EXISTS prescore;
COMMENT ON SCHEMA prescore IS 'Control tables of prescore: runs, publications, models, checks.';
CREATE SCHEMA IF NOT EXISTS prescore_rows;
COMMENT ON SCHEMA prescore_rows IS 'Rows of each pipeline; read them through the schema predictions.';
CREATE SCHEMA IF NOT EXISTS predictions;
COMMENT ON SCHEMA predictions IS 'What readers are granted: one view per pipeline, its usable rows, its lookup function.';
CREATE TABLE IF NOT EXISTS prescore.migrations (
    name       text        PRIMARY KEY,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE prescore.migrations IS 'Which migrations this database has.';
COMMENT ON COLUMN prescore.migrations.name IS 'File name without its ending.';
COMMENT ON COLUMN prescore.migrations.checksum IS 'SHA-256 of the text that was applied.';
COMMENT ON COLUMN prescore.migrations.applied_at IS 'When it was applied.';
