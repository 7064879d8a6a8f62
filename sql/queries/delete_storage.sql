-- Empty a storage without a lock that readers hold; older snapshots go on reading what they see.
-- Fragments: storage (table). Grain: no rows.
DELETE FROM {storage}
