-- List the runs that later runs and people still ask about, but for baselines: those at work, the newest of each mode, status and
-- trigger, those whose waiver is in force, where what alarms now began, and the last one that found it well before.
-- Parameters: pipeline (text), recent (integer: how many of each). Grain: one row per run.
WITH judged AS (
    SELECT max(r.run_id) AS run_id FROM prescore.runs AS r
    WHERE r.pipeline = :pipeline AND r.status IN ('published', 'held', 'aborted')
    UNION
    SELECT g.run_id FROM prescore.head AS h JOIN prescore.generations AS g USING (generation_id) WHERE h.pipeline = :pipeline
),
alarms AS (
    SELECT DISTINCT c.check_id, coalesce(c.evidence #>> '{amends,subject}', c.subject) AS subject, c.run_id,
           (c.evidence #>> '{amends,run_id}')::bigint AS amended
    FROM prescore.checks AS c JOIN judged USING (run_id)
    WHERE c.effective IN ('warn', 'fail')
),
began AS (
    SELECT min(k.run_id) AS run_id, max(well.run_id) AS well_run_id
    FROM alarms AS a
    CROSS JOIN LATERAL (
        SELECT coalesce(max(p.run_id), 0) AS run_id FROM prescore.checks AS p
        WHERE p.pipeline = :pipeline AND p.check_id = a.check_id AND p.subject = a.subject AND p.effective = 'pass'
          AND p.run_id < a.run_id
    ) AS well
    JOIN prescore.checks AS k ON k.pipeline = :pipeline AND k.check_id = a.check_id AND k.subject = a.subject
                             AND k.run_id > well.run_id AND k.effective IN ('warn', 'fail')
    GROUP BY a.check_id, a.subject
)
SELECT ranked.run_id
FROM (SELECT r.run_id, r.status,
             row_number() OVER (PARTITION BY r.mode, r.status, r.trigger ORDER BY r.run_id DESC) AS place
      FROM prescore.runs AS r WHERE r.pipeline = :pipeline) AS ranked
WHERE ranked.status = 'running' OR (ranked.place <= :recent AND ranked.status <> 'skipped')
UNION SELECT s.run_id FROM prescore.shards AS s WHERE s.pipeline = :pipeline
UNION SELECT judged.run_id FROM judged WHERE judged.run_id IS NOT NULL
UNION SELECT alarms.amended FROM alarms WHERE alarms.amended IS NOT NULL
UNION SELECT began.run_id FROM began WHERE began.run_id IS NOT NULL
UNION SELECT began.well_run_id FROM began WHERE began.well_run_id > 0
UNION
SELECT named.run_id
FROM prescore.waivers AS w
JOIN prescore.runs AS r ON r.run_id = w.run_id AND r.pipeline = :pipeline
CROSS JOIN LATERAL unnest(ARRAY[w.run_id, w.first_run_id]) AS named (run_id)
WHERE w.until > prescore.clock()
