-- Hide the scores of a generation from readers: the one UPDATE that every reader sees at once.
-- Parameters: pipeline, because (text), generation_id. Grain: one row.
UPDATE prescore.head
SET quarantined = quarantined || CAST(:generation_id AS bigint), quarantined_because = quarantined_because || CAST(:because AS text)
WHERE pipeline = :pipeline
