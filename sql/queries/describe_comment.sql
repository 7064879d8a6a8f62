-- Read what is said of a relation.
-- Parameters: relation (text: quoted, with its schema). Grain: one row; comment is NULL where nothing is.
SELECT obj_description(to_regclass(:relation), 'pg_class') AS comment
