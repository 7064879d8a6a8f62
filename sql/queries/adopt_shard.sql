-- Let a finished shard of a run that ended badly belong to the run that keeps it; who scored it stays written.
-- Parameters: from_run, run_id, shard. Grain: one row.
UPDATE prescore.shards SET run_id = :run_id WHERE run_id = :from_run AND shard = :shard AND state = 'finished'
