-- What a check counts as once history, unknowns and waivers are considered, and what follows from it.
ALTER TABLE prescore.checks
    ADD COLUMN effective   text,
    ADD COLUMN disposition text,
    ADD COLUMN followups   text[]  NOT NULL DEFAULT '{}',
    ADD COLUMN waived      boolean NOT NULL DEFAULT false,
    ADD COLUMN evidence    jsonb   NOT NULL DEFAULT '{}';
UPDATE prescore.checks
SET effective = CASE WHEN verdict <> 'unknown' THEN verdict WHEN class = 'gauge' THEN 'warn' ELSE 'fail' END;
ALTER TABLE prescore.checks
    ALTER COLUMN effective SET NOT NULL,
    ADD CONSTRAINT checks_effective CHECK (effective IN ('pass', 'warn', 'fail', 'skipped')),
    ADD CONSTRAINT checks_disposition CHECK (disposition IN ('publish', 'publish_flagged', 'hold', 'abort'));
COMMENT ON COLUMN prescore.checks.effective IS 'What the verdict counts as: persistence, the declared meaning of unknown and escalation considered.';
COMMENT ON COLUMN prescore.checks.disposition IS 'What this finding alone would have follow; NULL for runs before this was kept.';
COMMENT ON COLUMN prescore.checks.followups IS 'What has to happen next: refresh_source, rescore, retrain, investigate.';
COMMENT ON COLUMN prescore.checks.waived IS 'A person waived the verdict for this run; it is still what it is.';
COMMENT ON COLUMN prescore.checks.evidence IS 'Further numbers behind the verdict; never values of the data.';
