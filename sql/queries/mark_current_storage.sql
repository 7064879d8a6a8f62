-- Note the generation that an incremental run merged into the storage that is served.
-- Parameters: pipeline (text), generation_id. Grain: one row.
UPDATE prescore.storages SET generation_id = :generation_id WHERE pipeline = :pipeline AND role = 'current'
