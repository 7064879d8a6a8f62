-- List who else may read a relation, for another one that belongs to it.
-- Parameters: relation (text: a relation, quoted). Grain: one row per role; PUBLIC is an empty name.
SELECT coalesce(r.rolname::text, '') AS role, g.is_grantable
FROM pg_catalog.pg_class AS c
CROSS JOIN LATERAL aclexplode(c.relacl) AS g
LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = g.grantee
WHERE c.oid = to_regclass(:relation) AND g.privilege_type = 'SELECT' AND g.grantee <> c.relowner
