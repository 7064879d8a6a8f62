-- List what belongs to prescore and not to a role yet: schemas first, since who owns a table has to be able to create there.
-- Parameters: role (text). Grain: one row per object; sequences of columns go with their tables.
SELECT found.kind, found.name
FROM (
    SELECT 0 AS position, 'SCHEMA' AS kind, quote_ident(n.nspname) AS name, n.nspowner AS owner
    FROM pg_catalog.pg_namespace AS n WHERE n.nspname IN ('prescore', 'prescore_rows', 'predictions')
    UNION ALL
    SELECT 1, CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, format('%I.%I', n.nspname, c.relname), c.relowner
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('prescore', 'prescore_rows', 'predictions') AND c.relkind IN ('r', 'p', 'v')
    UNION ALL
    SELECT 2, 'SEQUENCE', format('%I.%I', n.nspname, c.relname), c.relowner
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('prescore', 'prescore_rows', 'predictions') AND c.relkind = 'S' AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend AS d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i'))
    UNION ALL
    SELECT 2, 'FUNCTION', format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), p.proowner
    FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname IN ('prescore', 'prescore_rows', 'predictions')
) AS found
WHERE pg_get_userbyid(found.owner) <> :role
ORDER BY found.position, found.name
