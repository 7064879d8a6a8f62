-- Remove what a past instant was scored as before; in the transaction that writes it anew.
-- Fragments: backfill (table), pipeline, as_of (literals). Grain: no rows.
WITH replaced AS (
    DELETE FROM prescore.backfills WHERE pipeline = {pipeline} AND as_of = {as_of} AND status = 'done' RETURNING generation_id
)
DELETE FROM {backfill} AS r USING replaced AS b WHERE r.scored_in = b.generation_id
