-- Note that nobody can see the state before a pipeline was renamed any more.
-- Parameters: pipeline (text). Grain: one row per name.
UPDATE prescore.former_names SET renamed_xid = NULL WHERE pipeline = :pipeline AND renamed_xid IS NOT NULL
