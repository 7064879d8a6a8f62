-- Create what readers saw: one row per entity and stretch of time in which head stood still.
-- A lineage whose rows are still in a storage is told by that storage and by the rows that merges replaced in it. One that was
-- archived lacks the rows that the next lineage began with unchanged, so an entity of which it holds nothing is told by the first
-- row of a later one, up to the first that holds everything. What stands in DISTINCT ON can be asked for without reading
-- everybody: the key and the instants.
-- Key and outputs have names of their own inside (k1, o1 and so on), so that none is that of a column of head.
-- Fragments: view, rows, history (relations), keys_v, keys_h, keys_r, outputs_v, outputs_h, outputs_r (columns of v, h and r),
-- keys_shown, outputs_shown (columns of f, as they are called), pipeline (text literal). Grain: no rows.
CREATE OR REPLACE VIEW {view} AS
SELECT {keys_shown},
       f.seen_from,
       f.seen_until,
       CASE WHEN f.row_scored_in = ANY (f.quarantined) THEN 'quarantined'
            WHEN f.row_scored_in < f.valid_since THEN 'superseded'
            WHEN f.rejected IS NOT NULL THEN 'rejected' END AS withheld,
       f.origin AS data_as_of,
       f.row_as_of AS as_of,
       least(f.aging_at, f.origin + f.aging_after, f.model_aging_at) AS aging_at,
       least(f.stale_at, f.origin + f.stale_after, f.model_stale_at) AS stale_at,
       least(f.expires_at, f.origin + f.stale_after + f.serve_stale_for) AS expires_at,
       f.verdict,
       f.serve_expired,
       f.data_as_of AS published_data_as_of,
       CASE
           WHEN f.row_scored_in = ANY (f.quarantined)
               THEN array_prepend(coalesce('quarantined: ' || f.quarantined_because[array_position(f.quarantined, f.row_scored_in)],
                                           'quarantined'), f.reasons)
           WHEN f.rejected IS NOT NULL THEN array_prepend('rejected: ' || f.rejected, f.reasons)
           ELSE f.reasons END AS reasons,
       f.model_version,
       f.row_scored_in AS scored_in,
       {outputs_shown}
FROM (
    SELECT e.*,
           least(e.data_as_of, CASE WHEN e.time_invariant THEN e.data_as_of ELSE e.row_as_of END) AS origin
    FROM (
        SELECT DISTINCT ON ({keys_v}, s.seen_from, s.seen_until, s.span_id)
               {keys_v}, s.seen_from, s.seen_until, s.span_id, s.quarantined, s.quarantined_because, s.valid_since, s.data_as_of,
               s.aging_at, s.stale_at, s.expires_at, s.aging_after, s.stale_after, s.serve_stale_for, s.model_aging_at,
               s.model_stale_at, s.time_invariant, s.serve_expired, s.verdict, s.reasons, s.model_version,
               CASE WHEN c.base = b.base OR v.as_of IS NULL THEN v.as_of ELSE b.as_of END AS row_as_of,
               CASE WHEN c.base = b.base THEN v.scored_in ELSE b.base END AS row_scored_in,
               v.scored_in <= CASE WHEN c.base = b.base THEN s.generation_id ELSE c.base END
                   AND coalesce(v.prescore_replaced_in > CASE WHEN c.base = b.base THEN s.generation_id ELSE c.base END, true)
                   AS was_there,
               v.rejected, {outputs_v}
        FROM prescore.head_history AS s
        JOIN prescore.lineages AS b ON b.pipeline = s.pipeline AND b.base = s.base
        JOIN prescore.lineages AS c
          ON c.pipeline = s.pipeline
         AND (c.base = b.base
              OR (b.storage_id IS NULL AND NOT b.complete AND NOT c.undone AND c.base > b.base
                  AND c.base <= (SELECT min(d.base) FROM prescore.lineages AS d
                                 WHERE d.pipeline = b.pipeline AND d.base > b.base AND NOT d.undone
                                   AND (d.complete OR d.storage_id IS NOT NULL))))
        JOIN (
            SELECT {keys_h}, h.prescore_base, h.as_of, h.scored_in, h.prescore_replaced_in, h.rejected, {outputs_h}
            FROM {history} AS h
            UNION ALL
            SELECT {keys_r}, l.base, r.as_of, r.scored_in, NULL::bigint, r.rejected, {outputs_r}
            FROM prescore.lineages AS l
            JOIN {rows} AS r ON r.storage_id = l.storage_id
            WHERE l.pipeline = {pipeline}
        ) AS v ON v.prescore_base = c.base
        WHERE s.pipeline = {pipeline}
        ORDER BY {keys_v}, s.seen_from, s.seen_until, s.span_id, c.base, was_there DESC, v.scored_in DESC, v.as_of NULLS LAST
    ) AS e
    WHERE e.was_there AND e.row_as_of IS NOT NULL
) AS f
