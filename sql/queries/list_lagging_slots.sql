-- List the replication slots that nobody reads and that keep back rows from VACUUM, or the write-ahead log; and those that are lost.
-- Parameters: bytes (bigint: log that a slot may keep). Grain: one row per slot.
SELECT s.slot_name, s.wal_status, s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL AS holds_back, kept.bytes
FROM pg_catalog.pg_replication_slots AS s
CROSS JOIN LATERAL (
    SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) END AS bytes
) AS kept
WHERE NOT s.temporary AND (s.wal_status IN ('unreserved', 'lost')
      OR (NOT s.active AND (s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL OR kept.bytes > :bytes)))
ORDER BY s.slot_name
