-- Remove the rows of backfilled generations.
-- Fragments: backfill (table). Parameters: generations (bigint[]). Grain: one row per removed row.
DELETE FROM {backfill} WHERE scored_in = ANY (CAST(:generations AS bigint[]))
