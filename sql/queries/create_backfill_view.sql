-- Create what readers ask of past instants: every row of those that are done.
-- Fragments: view, backfill (relations), keys, outputs (columns of r), pipeline (text literal). Grain: no rows.
CREATE OR REPLACE VIEW {view} AS
SELECT {keys}, b.as_of, b.model_version, r.scored_in, r.rejected, {outputs}
FROM prescore.backfills AS b
JOIN {backfill} AS r ON r.scored_in = b.generation_id
WHERE b.pipeline = {pipeline} AND b.status = 'done'
