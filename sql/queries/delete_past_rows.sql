-- Remove rows of the history that nothing tells of any more: those of forgotten lineages, and those that the oldest kept lineage
-- had replaced before anything that is kept.
-- Fragments: history (table). Parameters: pipeline (text), bases (bigint[]: the forgotten lineages). Grain: one row per removed row.
DELETE FROM {history} AS h
WHERE h.prescore_base = ANY (CAST(:bases AS bigint[]))
   OR EXISTS (
       SELECT FROM (
           SELECT s.base, min(s.generation_id) AS needed
           FROM prescore.head_history AS s
           WHERE s.pipeline = :pipeline
             AND s.base = (SELECT min(o.base) FROM prescore.head_history AS o
                           JOIN prescore.lineages AS k ON k.pipeline = o.pipeline AND k.base = o.base
                           WHERE o.pipeline = :pipeline AND NOT k.undone)
           GROUP BY s.base
       ) AS oldest
       WHERE h.prescore_base = oldest.base AND h.prescore_replaced_in <= oldest.needed)
