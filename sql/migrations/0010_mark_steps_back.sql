-- Which moves of an alias went back, so that going back again goes further and not forth.
ALTER TABLE prescore.aliases ADD COLUMN went_back boolean NOT NULL DEFAULT false;
UPDATE prescore.aliases SET went_back = true WHERE because ~ ' rolled back to generation [0-9]+$';
COMMENT ON COLUMN prescore.aliases.went_back IS 'A rollback returned to this version; a promotion otherwise.';
