-- List the quarantined generations whose rows a storage still holds. Rows have no index by generation: each one that is
-- asked for and not there costs a scan, so only generations that were published into this storage since it was last filled
-- are looked for.
-- Fragments: storage (table). Parameters: pipeline (text), storage_id, known (bigint[]: further ones that head hides).
-- Grain: one row per generation, oldest first.
SELECT bad.generation_id
FROM (
    SELECT q.generation_id
    FROM prescore.quarantines AS q
    JOIN prescore.generations AS g USING (generation_id)
    WHERE q.pipeline = :pipeline AND q.released_at IS NULL AND g.storage_id = :storage_id
      AND g.generation_id >= (
          SELECT max(f.generation_id) FROM prescore.generations AS f
          WHERE f.pipeline = :pipeline AND f.storage_id = :storage_id AND f.mode = 'full' AND f.undone_at IS NULL)
    UNION
    SELECT unnest(CAST(:known AS bigint[]))
) AS bad
WHERE EXISTS (SELECT FROM {storage} AS r WHERE r.scored_in = bad.generation_id)
ORDER BY bad.generation_id
