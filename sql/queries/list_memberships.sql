-- List the roles that a role is a member of, directly or not.
-- Parameters: role (text). Grain: one row per role.
SELECT r.rolname::text AS role FROM pg_catalog.pg_roles AS r WHERE pg_has_role(:role, r.oid, 'MEMBER') AND r.rolname <> :role
