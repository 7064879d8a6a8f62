-- Make the space of deleted rows usable again, and let the planner know what is there. The file is not cut: that would take a lock
-- against readers.
-- Fragments: storage (table). Grain: no rows.
VACUUM (ANALYZE, TRUNCATE false) {storage}
