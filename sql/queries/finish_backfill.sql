-- Write down that a past instant is scored; in the transaction of its rows, so that both are there or neither.
-- Fragments: generation_id, population, rejected, key_checksum (literals). Grain: no rows.
UPDATE prescore.backfills
SET status = 'done', ended_at = clock_timestamp(), population = {population}, rejected = {rejected}, key_checksum = {key_checksum},
    message = 'Scored ' || {population} || ' entities, of which ' || {rejected} || ' were rejected.'
WHERE generation_id = {generation_id} AND status = 'running'
