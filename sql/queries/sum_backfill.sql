-- Count and fingerprint what was written of a past instant: the other side of the ledger.
-- Fragments: backfill (table), key_hash (bigint), generation_id (literal). Grain: one row; the sum as text, since it is exact.
SELECT count(*) AS rows, coalesce(sum({key_hash}), 0)::text AS key_checksum FROM {backfill} WHERE scored_in = {generation_id}
