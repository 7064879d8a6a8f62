-- Read the type of a source's watermark column.
-- Fragments: relation, attribute (text literals). Grain: one row, or none when table or column is not there.
SELECT format_type(a.atttypid, NULL) AS type
FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid = to_regclass({relation}) AND a.attname = {attribute} AND NOT a.attisdropped
