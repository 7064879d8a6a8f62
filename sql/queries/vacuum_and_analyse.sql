-- Make the space of deleted rows usable again, and let the planner forget what was in them.
-- Fragments: table. Grain: no rows.
VACUUM (ANALYZE, TRUNCATE false) {table}
