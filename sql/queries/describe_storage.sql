-- Say whether a storage holds no row that anybody sees, how large its file is all the same, and how many of the indexes of
-- outputs it has.
-- Fragments: storage (table). Parameters: indexes (text[]: names). Grain: one row.
SELECT NOT EXISTS (SELECT FROM {storage}) AS empty, pg_relation_size('{storage}') AS bytes,
       (SELECT count(*) FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
        WHERE i.indrelid = '{storage}'::regclass AND c.relname = ANY (CAST(:indexes AS text[]))) AS indexes
