-- List the functions that gave way to one with other columns. No pipeline has a name that ends so.
-- Parameters: pipeline (text). Grain: one row per function; signature is quoted, with its schema and types.
SELECT p.oid::regprocedure::text AS signature
FROM pg_catalog.pg_proc AS p
WHERE p.pronamespace = 'predictions'::regnamespace AND p.proname ~ ('^' || CAST(:pipeline AS text) || '_(for|at|as_of)_[0-9]+$')
ORDER BY p.oid
