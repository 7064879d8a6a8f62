-- List the lineages that nothing needs any more: no reader's past tells of them, and no earlier lineage is told by them.
-- Parameters: pipeline (text). Grain: one row per lineage.
SELECT l.base
FROM prescore.lineages AS l
WHERE l.pipeline = :pipeline AND l.archived_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM prescore.head_history AS s WHERE s.pipeline = l.pipeline AND s.base = l.base)
  AND (l.undone OR l.base < coalesce((SELECT min(s.base) FROM prescore.head_history AS s
                                      JOIN prescore.lineages AS k ON k.pipeline = s.pipeline AND k.base = s.base
                                      WHERE s.pipeline = l.pipeline AND NOT k.undone), l.base + 1))
