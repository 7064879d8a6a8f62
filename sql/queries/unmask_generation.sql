-- Show the scores of a generation to readers again.
-- Parameters: pipeline (text), generation_id. Grain: one row, or none when they were not hidden.
UPDATE prescore.head
SET quarantined = array_remove(quarantined, CAST(:generation_id AS bigint)),
    quarantined_because = ARRAY(
        SELECT b.because FROM unnest(quarantined, quarantined_because) WITH ORDINALITY AS b(generation_id, because, position)
        WHERE b.generation_id <> :generation_id ORDER BY b.position)
WHERE pipeline = :pipeline AND CAST(:generation_id AS bigint) = ANY (quarantined)
RETURNING generation_id
