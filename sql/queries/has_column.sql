-- Find out whether a table has a column.
-- Parameters: relation (text: the table, quoted), name (text). Grain: one row.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = CAST(:relation AS regclass) AND a.attname = :name AND NOT a.attisdropped
) AS there
