-- Tell readers something more about what is served, and about what a rollback would return to, until the next publication.
-- Parameters: pipeline, reason (text). Grain: no rows.
WITH served AS (
    UPDATE prescore.head SET reasons = reasons || CAST(:reason AS text) WHERE pipeline = :pipeline
)
UPDATE prescore.generations AS g SET reasons = g.reasons || CAST(:reason AS text)
FROM prescore.storages AS s
WHERE s.pipeline = :pipeline AND s.role IN ('current', 'previous') AND g.generation_id = s.generation_id
