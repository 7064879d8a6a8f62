-- List the migrations that this database has.
-- Parameters: none. Grain: one row per migration, in order.
SELECT name, checksum FROM prescore.migrations ORDER BY name
