-- List the publications of a pipeline that readers may have seen since an instant, with the promise of each.
-- Parameters: pipeline (text); since (timestamptz, by prescore.clock(), or NULL for all). The one that was served at that
-- instant is among them. An incremental one is as bad as the full one that it amends.
-- Grain: one row per publication, oldest first; published_at is by prescore.clock(), and so are undone_at and quarantined_at
-- as far as the clock ran like the real one after the run.
SELECT g.generation_id, g.run_id, g.mode, g.model, g.model_version, g.as_of, g.data_as_of, g.aging_at, g.stale_at,
       g.expires_at, g.model_aging_at, g.model_stale_at, g.verdict, g.reasons, g.rows,
       g.published_at + (r.clock_at - r.started_at) AS published_at,
       g.undone_at + (r.clock_at - r.started_at) AS undone_at,
       least(g.quarantined_at, base.quarantined_at) + (r.clock_at - r.started_at) AS quarantined_at
FROM prescore.generations AS g
JOIN prescore.runs AS r USING (run_id)
LEFT JOIN LATERAL (
    SELECT b.quarantined_at
    FROM prescore.generations AS b
    WHERE b.pipeline = g.pipeline AND b.mode = 'full' AND b.generation_id <= g.generation_id
      AND (b.undone_at IS NULL OR b.undone_at > g.published_at)
    ORDER BY b.generation_id DESC LIMIT 1
) AS base ON true
WHERE g.pipeline = :pipeline
  AND (CAST(:since AS timestamptz) IS NULL
       OR g.published_at + (r.clock_at - r.started_at) >= :since
       OR g.undone_at + (r.clock_at - r.started_at) >= :since
       OR g.generation_id = (SELECT max(b.generation_id)
                             FROM prescore.generations AS b JOIN prescore.runs AS q USING (run_id)
                             WHERE b.pipeline = :pipeline AND b.undone_at IS NULL
                               AND b.published_at + (q.clock_at - q.started_at) < :since))
ORDER BY g.generation_id
