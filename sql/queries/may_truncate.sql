-- Say whether no snapshot, prepared transaction or replication slot is older than a storage's retirement, so that
-- emptying it at once (TRUNCATE is not MVCC-safe) hides nothing from anyone. Sessions of other databases cannot see it;
-- those without a database (of standbys, that report what their readers see) count.
-- Parameters: retired_xid (text: xid8, or NULL when head never left it). Grain: one row.
SELECT NOT EXISTS (
           SELECT FROM pg_catalog.pg_stat_activity AS a
           WHERE a.backend_xmin IS NOT NULL AND a.pid <> pg_backend_pid()
             AND (a.datid IS NULL OR a.datname = current_database())
             AND CAST(:retired_xid AS xid8) IS NOT NULL
             AND age(a.backend_xmin) >= age(CAST(:retired_xid AS xid8)::xid))
   AND NOT EXISTS (
           SELECT FROM pg_catalog.pg_stat_activity AS a
           WHERE a.backend_type = 'client backend' AND a.datname = current_database() AND a.state IS NULL)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts AS p WHERE p.database = current_database())
   AND NOT EXISTS (
           SELECT FROM pg_catalog.pg_replication_slots AS s
           WHERE s.xmin IS NOT NULL AND CAST(:retired_xid AS xid8) IS NOT NULL
             AND age(s.xmin) >= age(CAST(:retired_xid AS xid8)::xid)) AS safe
