-- Make the space of deleted rows usable again. The file is not cut: that would take a lock against readers.
-- Fragments: storage (table). Grain: no rows.
VACUUM (TRUNCATE false) {storage}
