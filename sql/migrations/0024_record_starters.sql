-- Who started a run is kept with it.
ALTER TABLE prescore.runs ADD COLUMN started_by text;
COMMENT ON COLUMN prescore.runs.started_by IS 'Who or what started it, where it is known: the user of the operating system, whom the form on the page of Prefect names, a schedule or an automation.';
COMMENT ON COLUMN prescore.waivers.os_user IS 'Who did, where it is known: the user of the operating system, or whom the form on the page of Prefect names.';
