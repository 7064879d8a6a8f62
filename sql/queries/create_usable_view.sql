-- Create the rows that may be used now (fresh, aging and stale ones), with raw prediction columns, so that ORDER BY and
-- WHERE on an output use its index. What head says is read by scalar subselects, once per statement. Conditions on rows
-- stand in one CASE: the planner takes it for half of the rows, and four open comparisons for one in eighty, which made
-- it sort everything instead of reading an index in order.
-- Fragments: view, rows (relations), keys (columns of r), pipeline (text literal), outputs (columns of r, each behind a comma). Grain: no rows.
CREATE OR REPLACE VIEW {view} AS
SELECT {keys}{outputs}
FROM {rows} AS r
WHERE r.rejected IS NULL
  AND r.storage_id = (
      SELECT h.storage_id FROM prescore.head AS h
      WHERE h.pipeline = {pipeline}
        AND prescore.clock() < least(h.expires_at, h.data_as_of + h.stale_after + h.serve_stale_for)
        AND prescore.clock() >= h.data_as_of - interval '5 minutes')
  AND CASE WHEN r.as_of <= (SELECT prescore.clock() + interval '5 minutes')
            AND r.as_of > (SELECT CASE WHEN h.time_invariant THEN '-infinity'::timestamptz
                                       ELSE prescore.clock() - h.stale_after - h.serve_stale_for END
                           FROM prescore.head AS h WHERE h.pipeline = {pipeline})
            AND r.scored_in >= (SELECT h.valid_since FROM prescore.head AS h WHERE h.pipeline = {pipeline})
            AND r.scored_in <> ALL (COALESCE((SELECT h.quarantined FROM prescore.head AS h WHERE h.pipeline = {pipeline}), '{}'))
           THEN true ELSE false END
