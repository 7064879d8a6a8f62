-- Describe where a storage lies and how large it and the one that is served are, as far as the role may see.
-- Parameters: storage, served (text: tables, quoted; NULL when nothing is served). Grain: one row: the folder of the server and
-- of the storage's tablespace (empty for the server's own; NULL: hidden from the role), the process and address of this
-- connection's backend, and bytes (max_wal_size is what the log grows to between checkpoints).
SELECT (SELECT s.setting FROM pg_catalog.pg_settings AS s WHERE s.name = 'data_directory') AS data_directory,
       pg_tablespace_location(coalesce(nullif(c.reltablespace, 0), d.dattablespace)) AS tablespace,
       pg_backend_pid() AS backend_pid, host(inet_server_addr()) AS server_address,
       (SELECT s.setting::bigint * 1048576 FROM pg_catalog.pg_settings AS s WHERE s.name = 'max_wal_size') AS most_wal,
       coalesce(pg_total_relation_size(c.oid), 0) AS storage_bytes,
       coalesce(pg_total_relation_size(to_regclass(CAST(:served AS text))), 0) AS served_bytes
FROM pg_catalog.pg_database AS d
LEFT JOIN pg_catalog.pg_class AS c ON c.oid = to_regclass(CAST(:storage AS text))
WHERE d.datname = current_database()
