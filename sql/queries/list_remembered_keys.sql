-- List the columns of which the planner remembers a key, among its most common values or the bounds of its histogram.
-- Fragments: key (jsonb). Parameters: names (text[]: key columns), values (text[]: as text), key_0, key_1, ... (text).
-- Grain: one row per column.
SELECT s.schemaname::text AS schemaname, s.tablename::text AS tablename, s.attname::text AS attname, s.inherited
FROM pg_catalog.pg_stats AS s
CROSS JOIN (SELECT CAST({key} AS text) AS document) AS k
CROSS JOIN LATERAL (
    SELECT coalesce(CAST(CAST(s.most_common_vals AS text) AS text[]), ARRAY[]::text[])
        || coalesce(CAST(CAST(s.histogram_bounds AS text) AS text[]), ARRAY[]::text[]) AS known
) AS r
WHERE (s.schemaname = 'prescore_rows' AND s.attname = ANY (CAST(:names AS text[])) AND r.known && CAST(:values AS text[]))
   OR (s.schemaname = 'prescore' AND s.attname = 'key' AND k.document = ANY (r.known))
   OR (s.schemaname = 'prescore' AND s.attname IN ('lower', 'upper') AND r.known && CAST(:values AS text[]))
