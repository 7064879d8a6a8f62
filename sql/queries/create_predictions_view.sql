-- Create what readers read: every row with its state by the clock of the database, and its provenance.
-- The view and its tables are constant; only head moves. The gate is a scalar subselect, because a join on storage_id
-- does not prune; OFFSET 0 reads head once, and works out there what holds for all rows: up to which as_of a row is
-- expired, stale, aging, and up to which it can be believed (infinity: all rows are, -infinity: none is). What is left
-- to do for each row are comparisons. Intervals of head hold no days or months, so that
-- as_of <= now - duration says exactly what now >= as_of + duration says. Nothing is joined LATERAL and no expression stands
-- in another one more than once: a lookup that is not prepared is nearly all planning, and spent a third of it there.
-- Fragments: view, rows (relations), keys (columns of r), pipeline (text literal), origin (when the data of a row was looked
-- at), outputs_shown (each behind a comma). Grain: no rows.
CREATE OR REPLACE VIEW {view} AS
SELECT {keys},
       CASE
           WHEN r.scored_in = ANY (h.quarantined) THEN 'quarantined'
           WHEN r.scored_in < h.valid_since THEN 'superseded'
           WHEN r.as_of > h.believed_until THEN 'clock_error'
           WHEN r.rejected IS NOT NULL THEN 'rejected'
           WHEN r.as_of <= h.expired_until THEN 'expired'
           WHEN r.as_of <= h.stale_until THEN 'stale'
           WHEN r.as_of <= h.aging_until THEN 'aging'
           ELSE 'fresh' END AS state,
       h.now - {origin} AS age,
       {origin} AS data_as_of,
       r.as_of,
       least(h.aging_at, {origin} + h.aging_after, h.model_aging_at) AS aging_at,
       least(h.stale_at, {origin} + h.stale_after, h.model_stale_at) AS stale_at,
       least(h.expires_at, {origin} + h.stale_after + h.serve_stale_for) AS expires_at,
       CASE
           WHEN r.scored_in = ANY (h.quarantined) OR r.scored_in < h.valid_since OR r.as_of > h.believed_until
                OR r.rejected IS NOT NULL OR r.as_of <= h.expired_until THEN interval '0'
           WHEN r.as_of <= h.stale_until
               THEN least(least(h.expires_at, {origin} + h.stale_after + h.serve_stale_for) - h.now, interval '30 seconds')
           ELSE least(least(h.stale_at, {origin} + h.stale_after, h.model_stale_at) - h.now, interval '5 minutes')
       END AS cache_for,
       CASE
           WHEN r.scored_in = ANY (h.quarantined)
               THEN array_prepend(coalesce('quarantined: ' || h.quarantined_because[array_position(h.quarantined, r.scored_in)],
                                           'quarantined'), h.reasons)
           WHEN r.rejected IS NOT NULL THEN array_prepend('rejected: ' || r.rejected, h.reasons)
           ELSE h.reasons END AS reasons,
       h.model_version,
       r.scored_in{outputs_shown}
FROM (
    SELECT c.now, g.quarantined, g.quarantined_because, g.valid_since, g.data_as_of, g.aging_at, g.stale_at, g.expires_at,
           g.aging_after, g.stale_after, g.serve_stale_for, g.model_aging_at, g.model_stale_at, g.time_invariant, g.serve_expired,
           g.reasons, g.model_version,
           CASE WHEN c.now < g.data_as_of - interval '5 minutes' THEN timestamptz '-infinity'
                ELSE c.now + interval '5 minutes' END AS believed_until,
           CASE WHEN c.now >= least(g.expires_at, g.data_as_of + g.stale_after + g.serve_stale_for) THEN timestamptz 'infinity'
                WHEN g.time_invariant THEN timestamptz '-infinity'
                ELSE c.now - g.stale_after - g.serve_stale_for END AS expired_until,
           CASE WHEN c.now >= least(g.stale_at, g.data_as_of + g.stale_after, g.model_stale_at) THEN timestamptz 'infinity'
                WHEN g.time_invariant THEN timestamptz '-infinity'
                ELSE c.now - g.stale_after END AS stale_until,
           CASE WHEN c.now >= least(g.aging_at, g.data_as_of + g.aging_after, g.model_aging_at) OR g.verdict <> 'pass'
                    THEN timestamptz 'infinity'
                WHEN g.time_invariant THEN timestamptz '-infinity'
                ELSE c.now - g.aging_after END AS aging_until
    FROM prescore.head AS g
    CROSS JOIN (SELECT prescore.clock() AS now) AS c
    WHERE g.pipeline = {pipeline}
    OFFSET 0
) AS h
CROSS JOIN {rows} AS r
WHERE r.storage_id = (SELECT storage_id FROM prescore.head WHERE pipeline = {pipeline})
