-- Health, finer than one row per pipeline: what metrics and dashboards read, with rights on these views and on no table.
-- They hold no key of an entity and no value of the data.
CREATE VIEW prescore.run_health AS
SELECT r.run_id,
       r.pipeline,
       r.mode,
       r.trigger,
       r.status,
       r.as_of,
       r.started_at,
       r.ended_at,
       extract(epoch FROM coalesce(r.ended_at, clock_timestamp()) - r.started_at)::double precision AS seconds,
       CASE r.status WHEN 'published' THEN r.generation_id END AS generation_id,
       r.model,
       r.model_version,
       r.population,
       r.scored,
       r.unchanged,
       r.rejected,
       r.rows_per_second,
       r.peak_memory,
       (r.cost ->> 'cpu_seconds')::double precision AS cpu_seconds,
       (r.cost ->> 'postgres_cpu_seconds')::double precision AS postgres_cpu_seconds,
       (r.cost -> 'per_million' ->> 'seconds')::double precision AS seconds_per_million,
       r.message
FROM prescore.runs AS r;

COMMENT ON VIEW prescore.run_health IS 'One row per run, with what it did and cost.';
COMMENT ON COLUMN prescore.run_health.run_id IS 'Id of the run.';
COMMENT ON COLUMN prescore.run_health.pipeline IS 'Pipeline that was run.';
COMMENT ON COLUMN prescore.run_health.mode IS 'full or incremental.';
COMMENT ON COLUMN prescore.run_health.trigger IS 'What started it: scheduled, manual, backfill or recovery.';
COMMENT ON COLUMN prescore.run_health.status IS 'running, or how it ended.';
COMMENT ON COLUMN prescore.run_health.as_of IS 'The instant that the data was looked at from.';
COMMENT ON COLUMN prescore.run_health.started_at IS 'When it was opened, by the real clock.';
COMMENT ON COLUMN prescore.run_health.ended_at IS 'When it ended, by the real clock; NULL while it is at work.';
COMMENT ON COLUMN prescore.run_health.seconds IS 'How long it took, or has been at work.';
COMMENT ON COLUMN prescore.run_health.generation_id IS 'Generation that it published; NULL where it did not.';
COMMENT ON COLUMN prescore.run_health.model IS 'Model that scored.';
COMMENT ON COLUMN prescore.run_health.model_version IS 'Version of that model.';
COMMENT ON COLUMN prescore.run_health.population IS 'Entities in the population: scored + unchanged + rejected.';
COMMENT ON COLUMN prescore.run_health.scored IS 'Entities that got a new prediction.';
COMMENT ON COLUMN prescore.run_health.unchanged IS 'Entities that the run did not need to score.';
COMMENT ON COLUMN prescore.run_health.rejected IS 'Entities that could not be scored.';
COMMENT ON COLUMN prescore.run_health.rows_per_second IS 'Rows read, scored and written per second.';
COMMENT ON COLUMN prescore.run_health.peak_memory IS 'Peak memory of the process in bytes.';
COMMENT ON COLUMN prescore.run_health.cpu_seconds IS 'CPU time of Python.';
COMMENT ON COLUMN prescore.run_health.postgres_cpu_seconds IS 'CPU time of the backends of PostgreSQL; NULL where it cannot be known.';
COMMENT ON COLUMN prescore.run_health.seconds_per_million IS 'Seconds that a million predictions take at the rate of this run; NULL where it made none.';
COMMENT ON COLUMN prescore.run_health.message IS 'How it ended, in a sentence.';

CREATE VIEW prescore.check_health AS
SELECT k.run_id,
       k.pipeline,
       r.started_at,
       k.check_id,
       k.code,
       k.class,
       k.subject,
       k.verdict,
       k.effective,
       k.disposition,
       k.waived,
       k.observed,
       k.warn_limit,
       k.fail_limit,
       k.unit,
       k.n,
       k.reason,
       k.followups,
       k.checked_at
FROM prescore.checks AS k
JOIN prescore.runs AS r ON r.run_id = k.run_id;

COMMENT ON VIEW prescore.check_health IS 'One row per check of a run and what it looked at: what was asked, answered, and follows.';
COMMENT ON COLUMN prescore.check_health.run_id IS 'Run that asked.';
COMMENT ON COLUMN prescore.check_health.pipeline IS 'Pipeline of the run.';
COMMENT ON COLUMN prescore.check_health.started_at IS 'When the run was opened, by the real clock.';
COMMENT ON COLUMN prescore.check_health.check_id IS 'Id of the check, for example source.age.';
COMMENT ON COLUMN prescore.check_health.code IS 'Letter code of the kind of staleness.';
COMMENT ON COLUMN prescore.check_health.class IS 'guard may block, gauge flags, clock bounds the time until which predictions are good.';
COMMENT ON COLUMN prescore.check_health.subject IS 'What was looked at: a source, a column, or empty for the whole run.';
COMMENT ON COLUMN prescore.check_health.verdict IS 'pass, warn, fail, unknown or skipped.';
COMMENT ON COLUMN prescore.check_health.effective IS 'What the verdict counts as: pass, warn, fail or skipped.';
COMMENT ON COLUMN prescore.check_health.disposition IS 'What this finding alone would have follow: publish, publish_flagged, hold or abort.';
COMMENT ON COLUMN prescore.check_health.waived IS 'A person waived the verdict for this run.';
COMMENT ON COLUMN prescore.check_health.observed IS 'What was measured, in the unit beside it.';
COMMENT ON COLUMN prescore.check_health.warn_limit IS 'Limit from which the verdict is warn.';
COMMENT ON COLUMN prescore.check_health.fail_limit IS 'Limit from which the verdict is fail.';
COMMENT ON COLUMN prescore.check_health.unit IS 'Unit of observed and of the limits.';
COMMENT ON COLUMN prescore.check_health.n IS 'How many rows the measurement rests on.';
COMMENT ON COLUMN prescore.check_health.reason IS 'The finding in a sentence.';
COMMENT ON COLUMN prescore.check_health.followups IS 'What has to happen next: refresh_source, rescore, retrain, investigate.';
COMMENT ON COLUMN prescore.check_health.checked_at IS 'When it was checked, by the real clock.';

CREATE VIEW prescore.schedule_health AS
SELECT s.pipeline,
       s.mode,
       s.crons,
       s.timezone,
       s.grace,
       s.next_tick,
       greatest(c.now - s.next_tick, interval '0') AS late,
       c.now >= s.next_tick + s.grace AS overdue
FROM prescore.schedules AS s
CROSS JOIN (SELECT prescore.clock() AS now) AS c;

COMMENT ON VIEW prescore.schedule_health IS 'One row per pipeline and mode with a schedule: how late is what it promised?';
COMMENT ON COLUMN prescore.schedule_health.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.schedule_health.mode IS 'full or incremental.';
COMMENT ON COLUMN prescore.schedule_health.crons IS 'Cron expressions, in the time zone beside them.';
COMMENT ON COLUMN prescore.schedule_health.timezone IS 'IANA time zone that the cron expressions are read in.';
COMMENT ON COLUMN prescore.schedule_health.grace IS 'How late a publication may be before the pipeline counts as overdue.';
COMMENT ON COLUMN prescore.schedule_health.next_tick IS 'First tick that no scheduled publication covers yet.';
COMMENT ON COLUMN prescore.schedule_health.late IS 'How long ago that tick was; zero while it is still to come.';
COMMENT ON COLUMN prescore.schedule_health.overdue IS 'That tick and the grace have passed.';

CREATE VIEW prescore.model_health AS
SELECT p.pipeline,
       p.model,
       p.alias,
       a.version AS aliased_version,
       a.since AS aliased_since,
       h.model_version AS served_version,
       m.created_at AS registered_at,
       m.train_data_until,
       c.now - m.train_data_until AS age,
       h.model_aging_at AS aging_at,
       h.model_stale_at AS stale_at,
       m.size_bytes
FROM prescore.pipelines AS p
CROSS JOIN (SELECT prescore.clock() AS now) AS c
LEFT JOIN prescore.head AS h ON h.pipeline = p.pipeline
LEFT JOIN prescore.aliases AS a ON a.model = p.model AND a.alias = p.alias AND a.until IS NULL
LEFT JOIN prescore.models AS m ON m.model = coalesce(h.model, p.model) AND m.version = coalesce(h.model_version, a.version);

COMMENT ON VIEW prescore.model_health IS 'One row per pipeline: the model version that is served, and the one that its alias names.';
COMMENT ON COLUMN prescore.model_health.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.model_health.model IS 'Model that the pipeline scores with.';
COMMENT ON COLUMN prescore.model_health.alias IS 'Alias that names the version to use.';
COMMENT ON COLUMN prescore.model_health.aliased_version IS 'Version that the alias names.';
COMMENT ON COLUMN prescore.model_health.aliased_since IS 'Since when it does.';
COMMENT ON COLUMN prescore.model_health.served_version IS 'Version whose predictions are served; NULL before the first publication.';
COMMENT ON COLUMN prescore.model_health.registered_at IS 'When the version that is served was registered; without a publication the one that the alias names.';
COMMENT ON COLUMN prescore.model_health.train_data_until IS 'End of the data that this version was fitted on.';
COMMENT ON COLUMN prescore.model_health.age IS 'How long ago that is.';
COMMENT ON COLUMN prescore.model_health.aging_at IS 'From when the model is old enough to warn.';
COMMENT ON COLUMN prescore.model_health.stale_at IS 'From when the model is too old.';
COMMENT ON COLUMN prescore.model_health.size_bytes IS 'Size of its bundle in bytes.';

-- From the catalogue, without a lock on what is measured: whoever looks never waits for a run, nor a run for them.
CREATE VIEW prescore.storage_health AS
SELECT s.pipeline,
       s.storage_id,
       s.role,
       s.generation_id,
       t.bytes,
       t.rows,
       t.dead_rows,
       CASE WHEN s.role = 'current' THEN coalesce(cardinality(h.quarantined), 0) ELSE 0 END AS quarantined_generations
FROM prescore.storages AS s
LEFT JOIN prescore.head AS h ON h.pipeline = s.pipeline
LEFT JOIN LATERAL (
    SELECT (c.relpages
            + coalesce((SELECT sum(x.relpages)
                        FROM pg_catalog.pg_index AS i
                        JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
                        WHERE i.indrelid = c.oid), 0)
            + coalesce((SELECT o.relpages FROM pg_catalog.pg_class AS o WHERE o.oid = c.reltoastrelid), 0)
           )::bigint * current_setting('block_size')::bigint AS bytes,
           nullif(c.reltuples, -1)::bigint AS rows,
           pg_catalog.pg_stat_get_dead_tuples(c.oid) AS dead_rows
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'prescore_rows' AND c.relname = s.pipeline || '_' || s.storage_id
) AS t ON true;

COMMENT ON VIEW prescore.storage_health IS 'One row per storage: what it holds, and how large it was when PostgreSQL last looked (ANALYZE, VACUUM, a new index).';
COMMENT ON COLUMN prescore.storage_health.pipeline IS 'Name of the pipeline.';
COMMENT ON COLUMN prescore.storage_health.storage_id IS '1, 2 or 3: the partition prescore_rows.<pipeline>_<storage_id>.';
COMMENT ON COLUMN prescore.storage_health.role IS 'current: head reads it; previous: a rollback returns to it; next: cleared, or being filled.';
COMMENT ON COLUMN prescore.storage_health.generation_id IS 'Last generation published into it; NULL for next.';
COMMENT ON COLUMN prescore.storage_health.bytes IS 'Table, indexes and TOAST.';
COMMENT ON COLUMN prescore.storage_health.rows IS 'Rows, as the planner reckons; NULL before it was analysed.';
COMMENT ON COLUMN prescore.storage_health.dead_rows IS 'Rows that updates and deletes left behind, as PostgreSQL keeps count.';
COMMENT ON COLUMN prescore.storage_health.quarantined_generations IS 'Generations in what is served that were found bad: their rows are hidden from readers.';

CREATE VIEW prescore.installation_health AS
SELECT prescore.clock() AS now,
       current_setting('server_version') AS server_version,
       count(*) AS migrations,
       max(m.name) AS last_migration,
       max(m.applied_at) AS migrated_at
FROM prescore.migrations AS m;

COMMENT ON VIEW prescore.installation_health IS 'One row: the clock that freshness is judged by, the server, and which migrations the database has.';
COMMENT ON COLUMN prescore.installation_health.now IS 'The instant that freshness is judged at.';
COMMENT ON COLUMN prescore.installation_health.server_version IS 'Version of PostgreSQL.';
COMMENT ON COLUMN prescore.installation_health.migrations IS 'Number of migrations that were applied.';
COMMENT ON COLUMN prescore.installation_health.last_migration IS 'The last of them.';
COMMENT ON COLUMN prescore.installation_health.migrated_at IS 'When it was applied.';
