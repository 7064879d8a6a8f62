-- Note what became of the copy of a generation.
-- Parameters: pipeline (text), generation_id, url, status (owed, archived or failed), problem, amends, rows, files, bytes (or NULL).
-- Grain: one row.
INSERT INTO prescore.archives (pipeline, generation_id, url, status, problem, amends, rows, files, bytes)
VALUES (:pipeline, :generation_id, :url, :status, :problem, :amends, :rows, :files, :bytes)
ON CONFLICT (pipeline, generation_id) DO UPDATE
SET url = excluded.url, status = excluded.status, problem = excluded.problem, amends = excluded.amends, rows = excluded.rows,
    files = excluded.files, bytes = excluded.bytes, noted_at = clock_timestamp()
