-- List who may do what with relations and functions, their owner aside; defaults of PostgreSQL are listed as what they mean.
-- Parameters: relations (oid[]), functions (oid[]). Grain: one row per object, grantee, privilege and column (NULL: all of it);
-- grantee is quoted, or PUBLIC.
SELECT g.object, g.kind, g.column_name, g.privilege, g.grantable,
       CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END AS grantee
FROM (
    SELECT c.oid AS object, 'relation' AS kind, NULL AS column_name, c.relowner AS owner, a.privilege_type AS privilege,
           a.is_grantable AS grantable, a.grantee
    FROM pg_catalog.pg_class AS c
    CROSS JOIN LATERAL aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) AS a
    WHERE c.oid = ANY (CAST(:relations AS oid[]))
    UNION ALL
    SELECT c.oid, 'relation', t.attname, c.relowner, a.privilege_type, a.is_grantable, a.grantee
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_attribute AS t ON t.attrelid = c.oid AND NOT t.attisdropped
    CROSS JOIN LATERAL aclexplode(t.attacl) AS a
    WHERE c.oid = ANY (CAST(:relations AS oid[]))
    UNION ALL
    SELECT p.oid, 'function', NULL, p.proowner, a.privilege_type, a.is_grantable, a.grantee
    FROM pg_catalog.pg_proc AS p
    CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
    WHERE p.oid = ANY (CAST(:functions AS oid[]))
) AS g
WHERE g.grantee <> g.owner
ORDER BY g.object, g.column_name NULLS FIRST, g.grantee, g.privilege
