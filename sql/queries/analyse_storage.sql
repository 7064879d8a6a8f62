-- Let the planner know a storage that was filled; never an empty one: a cached plan would keep a sequential scan.
-- Fragments: storage (table). Grain: no rows.
ANALYZE {storage}
