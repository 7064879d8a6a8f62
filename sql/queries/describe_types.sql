-- Name the types that a query returns; domains are named by their base type.
-- Parameters: oids (integer[]: types as the driver reports them). Grain: one row per type.
WITH RECURSIVE base AS (
    SELECT t.oid AS asked, t.oid, t.typtype, t.typbasetype, t.typtypmod
    FROM pg_catalog.pg_type AS t
    WHERE t.oid = ANY (CAST(:oids AS oid[]))
    UNION ALL
    SELECT b.asked, t.oid, t.typtype, t.typbasetype, t.typtypmod
    FROM base AS b
    JOIN pg_catalog.pg_type AS t ON t.oid = b.typbasetype
    WHERE b.typtype = 'd'
)
SELECT asked::bigint AS oid, format_type(oid, NULL) AS name, typtype::text AS typtype
FROM base
WHERE typtype <> 'd'
