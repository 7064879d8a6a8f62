-- Store one chunk of a version's bundle.
-- Parameters: model, version, chunk (from 0), data (at most 4 MiB). Grain: one row.
INSERT INTO prescore.model_chunks (model, version, chunk, data) VALUES (:model, :version, :chunk, :data)
