-- Write down what readers see from here on, and that they saw what was before until now; only where the lineage that is served is
-- followed. What was before and is not followed by anything ends all the same.
-- Parameters: pipeline (text). Grain: one row, or none where nothing is followed.
WITH ended AS (
    UPDATE prescore.head_history SET seen_until = prescore.clock() WHERE pipeline = :pipeline AND seen_until IS NULL
    RETURNING span_id
)
INSERT INTO prescore.head_history (pipeline, seen_from, base, generation_id, as_of, valid_since, quarantined, quarantined_because,
    data_as_of, aging_at, stale_at, expires_at, aging_after, stale_after, serve_stale_for, model_aging_at, model_stale_at,
    time_invariant, serve_expired, verdict, reasons, model, model_version)
SELECT h.pipeline, prescore.clock(), l.base, h.generation_id, h.as_of, h.valid_since, h.quarantined, h.quarantined_because,
       h.data_as_of, h.aging_at, h.stale_at, h.expires_at, h.aging_after, h.stale_after, h.serve_stale_for, h.model_aging_at,
       h.model_stale_at, h.time_invariant, h.serve_expired, h.verdict, h.reasons, h.model, h.model_version
FROM prescore.head AS h
JOIN prescore.lineages AS l ON l.pipeline = h.pipeline AND l.storage_id = h.storage_id
WHERE h.pipeline = :pipeline AND (SELECT count(*) FROM ended) >= 0
RETURNING span_id
