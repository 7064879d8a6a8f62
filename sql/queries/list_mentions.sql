-- List functions whose text names a view or function of a pipeline: PostgreSQL does not know that they rest on it.
-- Parameters: pattern (text: a regular expression). Grain: one row per function.
SELECT p.oid::regprocedure::text AS identity
FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE p.prosqlbody IS NULL AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'prescore') AND p.prosrc ~* CAST(:pattern AS text)
ORDER BY 1
