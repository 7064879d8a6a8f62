-- List what rests on relations and functions and is none of them: views, materialized views, functions with a parsed body, foreign
-- keys, columns of a row type; and what rests on those.
-- Parameters: relations, functions (oid[]; partitions are found). Grain: one row per object.
WITH RECURSIVE relations (oid) AS (
    SELECT t.relid::oid FROM unnest(CAST(:relations AS oid[])) AS r (oid)
    CROSS JOIN LATERAL pg_catalog.pg_partition_tree(r.oid::regclass) AS t
    UNION
    SELECT r.oid FROM unnest(CAST(:relations AS oid[])) AS r (oid)
    UNION
    SELECT i.indexrelid FROM unnest(CAST(:relations AS oid[])) AS r (oid) JOIN pg_catalog.pg_index AS i ON i.indrelid = r.oid
), ours (classid, objid) AS (
    SELECT 'pg_class'::regclass::oid, oid FROM relations
    UNION
    SELECT 'pg_type'::regclass::oid, t.oid FROM pg_catalog.pg_type AS t WHERE t.typrelid IN (SELECT oid FROM relations)
    UNION
    SELECT 'pg_type'::regclass::oid, t.typarray FROM pg_catalog.pg_type AS t WHERE t.typrelid IN (SELECT oid FROM relations)
    UNION
    SELECT 'pg_proc'::regclass::oid, f FROM unnest(CAST(:functions AS oid[])) AS f
), dependents (classid, objid) AS (
    SELECT classid, objid FROM ours
    UNION
    SELECT coalesce(CASE WHEN w.oid IS NOT NULL OR e.oid IS NOT NULL THEN 'pg_class'::regclass::oid END, d.classid),
           coalesce(w.ev_class, e.adrelid, d.objid)
    FROM dependents AS o
    JOIN pg_catalog.pg_depend AS d ON d.refclassid = o.classid AND d.refobjid = o.objid AND d.deptype = 'n'
    LEFT JOIN pg_catalog.pg_rewrite AS w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
    LEFT JOIN pg_catalog.pg_attrdef AS e ON d.classid = 'pg_attrdef'::regclass AND e.oid = d.objid
)
SELECT i.type AS kind, i.identity
FROM dependents AS d
CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, 0) AS i
WHERE (d.classid, d.objid) NOT IN (SELECT classid, objid FROM ours)
ORDER BY 1, 2
