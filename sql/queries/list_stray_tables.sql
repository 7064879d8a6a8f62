-- List tables among the rows of pipelines that belong to no pipeline that ever ran here.
-- Parameters: none. Grain: one row per table.
SELECT c.relname AS name, pg_total_relation_size(c.oid) AS bytes
FROM pg_catalog.pg_class AS c
WHERE c.relnamespace = to_regnamespace('prescore_rows') AND c.relkind IN ('r', 'p')
  AND NOT EXISTS (SELECT FROM prescore.pipelines AS p
                  WHERE c.relname IN (p.pipeline, p.pipeline || '_1', p.pipeline || '_2', p.pipeline || '_3',
                                      p.pipeline || '_history', p.pipeline || '_backfill'))
ORDER BY c.relname
