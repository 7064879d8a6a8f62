-- List what arrived in a source before earlier runs that their schedule published: a few of the same slot, a few of others.
-- Parameters: pipeline, source, digest (of what is counted; text), as_of, since (timestamptz: slices in between), zone (IANA),
-- slot (format of to_char that instants of one slot agree in), slices (how many of each kind).
-- What was waived, undone or quarantined is left out; a slice that failed has no rows.
-- Grain: one row per run, newest first.
WITH clean AS (
    SELECT r.as_of,
           CASE WHEN c.verdict <> 'fail' AND c.evidence ->> 'digest' = :digest THEN CAST(c.evidence ->> 'rows' AS bigint) END AS rows,
           CAST(c.evidence ->> 'hours' AS double precision) AS hours,
           to_char(r.as_of AT TIME ZONE :zone, :slot) = to_char(CAST(:as_of AS timestamptz) AT TIME ZONE :zone, :slot) AS same_slot
    FROM prescore.runs AS r
    JOIN prescore.generations AS g ON g.run_id = r.run_id
    LEFT JOIN prescore.checks AS c ON c.run_id = r.run_id AND c.check_id = 'source.rows' AND c.subject = :source
    WHERE r.pipeline = :pipeline AND r.status = 'published' AND r.trigger IN ('scheduled', 'recovery')
      AND r.as_of < :as_of AND r.as_of >= :since
      AND g.undone_at IS NULL
      AND NOT EXISTS (SELECT FROM prescore.head AS h
                      WHERE h.pipeline = r.pipeline AND g.generation_id = ANY (h.quarantined))
      AND NOT EXISTS (SELECT FROM prescore.checks AS w WHERE w.run_id = r.run_id AND w.waived)
)
SELECT as_of, rows, hours, same_slot
FROM (SELECT *, row_number() OVER (PARTITION BY same_slot, rows IS NULL ORDER BY as_of DESC) AS place FROM clean) AS ranked
WHERE place <= :slices
ORDER BY as_of DESC
