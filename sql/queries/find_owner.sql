-- Find who owns the control tables.
-- Grain: one row.
SELECT pg_get_userbyid(nspowner)::text AS owner FROM pg_catalog.pg_namespace WHERE nspname = 'prescore'
