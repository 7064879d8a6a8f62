-- Write down a publication.
-- Parameters: one per column. Grain: one row.
INSERT INTO prescore.generations (generation_id, pipeline, run_id, mode, storage_id, published_at, as_of, watermark, valid_since,
    quarantined, data_as_of, aging_at, stale_at, expires_at, aging_after, stale_after, serve_stale_for, model_aging_at,
    model_stale_at, time_invariant, serve_expired, verdict, reasons, model, model_version, logic_digest, rows, key_checksum)
VALUES (:generation_id, :pipeline, :run_id, :mode, :storage_id, clock_timestamp(), :as_of, :watermark, :valid_since,
    CAST(:quarantined AS bigint[]), :data_as_of, :aging_at, :stale_at, :expires_at, :aging_after, :stale_after, :serve_stale_for,
    :model_aging_at, :model_stale_at, :time_invariant, :serve_expired, :verdict, CAST(:reasons AS text[]), :model, :model_version,
    :logic_digest, :rows, :key_checksum)
