-- Find out whether an object of a pipeline is there.
-- Parameters: kind (text: function, or a relation), name (text: quoted, with its schema; a function with its arguments). Grain: one row.
SELECT CASE WHEN :kind = 'function' THEN to_regprocedure(:name) IS NOT NULL ELSE to_regclass(:name) IS NOT NULL END AS there
