-- Read what is known of a storage without reading its rows, in the run's snapshot.
-- Fragments: pipeline (text literal), storage_id (integer literal), rows, storage (tables as text literals).
-- watched: triggers that note who else writes are there and on. foreign: somebody else did.
-- Grain: one row.
SELECT s.oldest_as_of,
       s.rejected,
       (SELECT count(*) = 2 FROM pg_catalog.pg_trigger AS t
        WHERE t.tgrelid IN ({rows}::regclass, {storage}::regclass) AND t.tgname = 'prescore_foreign_write'
          AND t.tgenabled IN ('O', 'A')) AS watched,
       EXISTS (SELECT FROM prescore.foreign_writes AS w WHERE w.pipeline = s.pipeline AND w.storage_id = s.storage_id) AS "foreign"
FROM prescore.storages AS s
WHERE s.pipeline = {pipeline} AND s.storage_id = {storage_id}
