-- Note the digest of a bundle from which a forgotten entity was taken.
-- Parameters: model, digest (text), version, size_bytes. Grain: one row.
UPDATE prescore.models SET digest = :digest, size_bytes = :size_bytes WHERE model = :model AND version = :version
