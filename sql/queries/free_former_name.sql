-- Set a name free that a pipeline had.
-- Parameters: former (text). Grain: one row per pipeline that had it.
UPDATE prescore.former_names SET use = 'free' WHERE former = :former AND use <> 'free'
