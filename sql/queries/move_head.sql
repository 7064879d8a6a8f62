-- Move head to a generation: the one statement that changes what readers see.
-- Parameters: pipeline (text), generation_id, quarantined (bigint[]: those whose rows its storage holds), added (text[]: reasons beside
-- those of the publication). Grain: one row.
INSERT INTO prescore.head (pipeline, generation_id, storage_id, published_at, as_of, watermark, valid_since, quarantined,
    quarantined_because, data_as_of, aging_at, stale_at, expires_at, aging_after, stale_after, serve_stale_for, model_aging_at,
    model_stale_at, time_invariant, serve_expired, verdict, reasons, model, model_version, logic_digest, rows, key_checksum)
SELECT pipeline, generation_id, storage_id, published_at, as_of, watermark, valid_since, CAST(:quarantined AS bigint[]),
    ARRAY(
        SELECT coalesce(q.because, '') FROM unnest(CAST(:quarantined AS bigint[])) WITH ORDINALITY AS b(generation_id, position)
        LEFT JOIN prescore.quarantines AS q ON q.generation_id = b.generation_id AND q.released_at IS NULL
        ORDER BY b.position),
    data_as_of, aging_at, stale_at, expires_at, aging_after, stale_after, serve_stale_for, model_aging_at, model_stale_at,
    time_invariant, serve_expired, verdict, reasons || CAST(:added AS text[]), model, model_version, logic_digest, rows, key_checksum
FROM prescore.generations WHERE pipeline = :pipeline AND generation_id = :generation_id
ON CONFLICT (pipeline) DO UPDATE SET
    generation_id = excluded.generation_id, storage_id = excluded.storage_id, published_at = excluded.published_at,
    as_of = excluded.as_of, watermark = excluded.watermark, valid_since = excluded.valid_since,
    quarantined = excluded.quarantined, quarantined_because = excluded.quarantined_because, data_as_of = excluded.data_as_of,
    aging_at = excluded.aging_at,
    stale_at = excluded.stale_at, expires_at = excluded.expires_at, aging_after = excluded.aging_after,
    stale_after = excluded.stale_after, serve_stale_for = excluded.serve_stale_for, model_aging_at = excluded.model_aging_at,
    model_stale_at = excluded.model_stale_at, time_invariant = excluded.time_invariant, serve_expired = excluded.serve_expired,
    verdict = excluded.verdict, reasons = excluded.reasons, model = excluded.model, model_version = excluded.model_version,
    logic_digest = excluded.logic_digest, rows = excluded.rows, key_checksum = excluded.key_checksum
