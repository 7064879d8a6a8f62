-- Create what readers read: every row with its state by the clock of the database, and its provenance.
-- The view and its tables are constant; only head moves. The gate is a scalar subselect, because a join on storage_id
-- does not prune; OFFSET 0 reads head once.
-- Fragments: view, rows (relations), keys (columns of r), pipeline (text literal), outputs_shown. Grain: no rows.
CREATE VIEW {view} AS
SELECT {keys},
       t.state,
       h.now - o.origin AS age,
       o.origin AS data_as_of,
       r.as_of,
       o.aging_at,
       o.stale_at,
       o.expires_at,
       CASE WHEN t.state IN ('fresh', 'aging') THEN least(o.stale_at - h.now, interval '5 minutes')
            WHEN t.state = 'stale' THEN least(o.expires_at - h.now, interval '30 seconds')
            ELSE interval '0' END AS cache_for,
       CASE WHEN r.rejected IS NULL THEN h.reasons ELSE array_prepend('rejected: ' || r.rejected, h.reasons) END AS reasons,
       h.model_version,
       r.scored_in,
       {outputs_shown}
FROM (SELECT *, prescore.clock() AS now FROM prescore.head WHERE pipeline = {pipeline} OFFSET 0) AS h
CROSS JOIN {rows} AS r
CROSS JOIN LATERAL (SELECT CASE WHEN h.time_invariant THEN h.data_as_of ELSE least(h.data_as_of, r.as_of) END AS origin) AS b
CROSS JOIN LATERAL (
    SELECT b.origin,
           least(h.aging_at, b.origin + h.aging_after, h.model_aging_at) AS aging_at,
           least(h.stale_at, b.origin + h.stale_after, h.model_stale_at) AS stale_at,
           least(h.expires_at, b.origin + h.stale_after + h.serve_stale_for) AS expires_at
) AS o
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN r.scored_in = ANY (h.quarantined) THEN 'quarantined'
        WHEN r.scored_in < h.valid_since THEN 'superseded'
        WHEN h.now < greatest(h.data_as_of, r.as_of) - interval '5 minutes' THEN 'clock_error'
        WHEN r.rejected IS NOT NULL THEN 'rejected'
        WHEN h.now >= o.expires_at THEN 'expired'
        WHEN h.now >= o.stale_at THEN 'stale'
        WHEN h.now >= o.aging_at OR h.verdict <> 'pass' THEN 'aging'
        ELSE 'fresh' END AS state
) AS t
WHERE r.storage_id = (SELECT storage_id FROM prescore.head WHERE pipeline = {pipeline})
