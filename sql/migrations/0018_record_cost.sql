-- What a run cost is kept with it.
ALTER TABLE prescore.runs ADD COLUMN cost jsonb;
COMMENT ON COLUMN prescore.runs.cost IS 'What it cost, in seconds: of the run, its steps, the stages of its stream, and per million predictions; NULL where it was not added up.';
