-- Who vouched for a pickle or joblib file, when, and for which file: the trust is in that file and in no other.
ALTER TABLE prescore.models ADD COLUMN trusted_by text;
ALTER TABLE prescore.models ADD COLUMN trusted_os_user text;
ALTER TABLE prescore.models ADD COLUMN trusted_at timestamptz;
ALTER TABLE prescore.models ADD COLUMN trusted_sha256 text;
-- So far only that somebody did was kept; it was whoever registered the version, then.
UPDATE prescore.models SET trusted_by = created_by, trusted_at = created_at WHERE trusted_pickle;
ALTER TABLE prescore.models ADD CONSTRAINT models_trust
    CHECK (trusted_pickle = (trusted_by IS NOT NULL) AND trusted_pickle = (trusted_at IS NOT NULL));
COMMENT ON COLUMN prescore.models.trusted_by IS 'Database role that vouched for the pickle or joblib file; NULL for a skops file.';
COMMENT ON COLUMN prescore.models.trusted_os_user IS 'User of the operating system who did, where it is known.';
COMMENT ON COLUMN prescore.models.trusted_at IS 'When they did.';
COMMENT ON COLUMN prescore.models.trusted_sha256 IS 'SHA-256 of the file that they vouched for; no other one is opened. NULL if that was not recorded yet.';
