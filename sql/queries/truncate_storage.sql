-- Empty a storage at once; only after may_truncate, with a short lock_timeout.
-- Fragments: storage (table). Grain: no rows.
TRUNCATE {storage}
