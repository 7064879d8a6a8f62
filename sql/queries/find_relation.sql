-- Find out whether a relation is there.
-- Parameters: relation (text: quoted, with its schema). Grain: one row.
SELECT to_regclass(:relation) IS NOT NULL AS there
