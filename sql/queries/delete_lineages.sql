-- Forget lineages.
-- Parameters: pipeline (text), bases (bigint[]). Grain: one row per lineage.
DELETE FROM prescore.lineages WHERE pipeline = :pipeline AND base = ANY (CAST(:bases AS bigint[]))
