-- Forget that a pipeline had a name: it has it again.
-- Parameters: pipeline, former (text). Grain: one row.
DELETE FROM prescore.former_names WHERE pipeline = :pipeline AND former = :former
