-- List the rights that a run needs and this role lacks.
-- Parameters: none. Grain: one row per right.
SELECT format('%s on schema %I', needed.privilege, n.nspname) AS lacking
FROM (VALUES ('prescore', 'USAGE'), ('prescore_rows', 'CREATE'), ('predictions', 'CREATE')) AS needed (schema, privilege)
JOIN pg_catalog.pg_namespace AS n ON n.nspname = needed.schema
WHERE NOT has_schema_privilege(n.oid, needed.privilege)
UNION ALL
SELECT format('writing %I.%I', n.nspname, c.relname)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'prescore' AND c.relkind IN ('r', 'p') AND c.relname <> 'migrations'
  AND NOT (has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'SELECT'))
UNION ALL
SELECT format('owning %I.%I, which belongs to %s', n.nspname, c.relname, pg_get_userbyid(c.relowner))
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname IN ('prescore_rows', 'predictions') AND c.relkind IN ('r', 'p', 'v')
  AND NOT pg_has_role(current_user, c.relowner, 'USAGE')
ORDER BY lacking
