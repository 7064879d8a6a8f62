-- Find a role.
-- Parameters: role (text). Grain: one row, or none.
SELECT rolname::text AS role, rolsuper AS is_super FROM pg_catalog.pg_roles WHERE rolname = :role
