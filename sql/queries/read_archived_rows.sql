-- Read the rows of what is served, all or those of one generation; nothing when another generation is served.
-- Fragments: columns_read, storage (table), pipeline (text literal), generation_id (integer literal), condition (on r).
-- Grain: one row per entity.
SELECT {columns_read}
FROM {storage} AS r
WHERE (SELECT h.generation_id FROM prescore.head AS h WHERE h.pipeline = {pipeline}) = {generation_id}
  AND {condition}
