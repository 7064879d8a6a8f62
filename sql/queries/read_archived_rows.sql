-- Read the rows of a storage to copy them: all, or those that meet a condition.
-- Fragments: columns_read, storage (table), condition (on r).
-- Grain: one row per entity.
SELECT {columns_read}
FROM {storage} AS r
WHERE {condition}
