-- Note how much is left of a copy from which rows were taken.
-- Parameters: pipeline, url (text), generation_id, rows, bytes. Grain: at most one row.
UPDATE prescore.archives SET rows = :rows, bytes = :bytes
WHERE pipeline = :pipeline AND url = :url AND generation_id = :generation_id AND status = 'archived'
