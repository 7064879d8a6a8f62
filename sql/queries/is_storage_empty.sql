-- Say whether a storage holds no row.
-- Fragments: storage (table). Grain: one row.
SELECT NOT EXISTS (SELECT FROM {storage}) AS empty
