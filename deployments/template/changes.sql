-- Whose features may have changed after since.at, which prescore supplies: an incremental run scores these again. Each
-- table that features.sql reads says so for itself, by the time a row was written; a new event does not touch the
-- entity's row. [features] changes in pipeline.toml names this file.
SELECT $table_keys FROM $table AS t, since WHERE t.$watermark > since.at
-- UNION
-- SELECT $event_keys FROM your_schema.your_events AS e, since WHERE e.loaded_at > since.at
