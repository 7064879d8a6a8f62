-- Read one chunk of a version's bundle.
-- Parameters: model, version, chunk (from 0). Grain: one row, or none after the last chunk.
SELECT data FROM prescore.model_chunks WHERE model = :model AND version = :version AND chunk = :chunk
