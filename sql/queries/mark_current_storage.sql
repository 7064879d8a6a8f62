-- Note the generation that an incremental run merged into the storage that is served.
-- Parameters: pipeline (text), generation_id; oldest_as_of and rejected, which may be NULL, of what it holds now. Grain: one row.
UPDATE prescore.storages SET generation_id = :generation_id, oldest_as_of = CAST(:oldest_as_of AS timestamptz),
    rejected = CAST(:rejected AS bigint)
WHERE pipeline = :pipeline AND role = 'current'
