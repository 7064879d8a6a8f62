-- List the functions that gave way to one with other columns. No pipeline has a name that ends so.
-- Parameters: names (text[]: the pipeline's, and former ones). Grain: one row per function; signature is quoted, with its schema and types.
SELECT p.oid::regprocedure::text AS signature
FROM pg_catalog.pg_proc AS p
WHERE p.pronamespace = 'predictions'::regnamespace AND p.proname ~ ('^(' || array_to_string(CAST(:names AS text[]), '|') || ')_(for|at|as_of)_[0-9]+$')
ORDER BY p.oid
