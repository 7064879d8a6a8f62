-- Keep the text of a declaration under its contract digest; the first text of a digest stays.
-- Parameters: pipeline, digest, text (text). Grain: one row, or none.
INSERT INTO prescore.contracts (pipeline, digest, text)
VALUES (:pipeline, :digest, :text)
ON CONFLICT (pipeline, digest) DO NOTHING
