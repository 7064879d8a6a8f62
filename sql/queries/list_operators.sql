-- List the roles that may move head without owning it: operators.
-- Grain: one row per role.
SELECT DISTINCT pg_get_userbyid(a.grantee)::text AS role
FROM pg_catalog.pg_class AS c
CROSS JOIN LATERAL aclexplode(c.relacl) AS a
WHERE c.oid = 'prescore.head'::regclass AND a.privilege_type = 'UPDATE' AND a.grantee NOT IN (0, c.relowner)
