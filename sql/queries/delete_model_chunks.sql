-- Remove the bytes of a version's bundle, for others to be stored; in the transaction in which they are.
-- Parameters: model, version. Grain: no rows.
DELETE FROM prescore.model_chunks WHERE model = :model AND version = :version
