-- Keep the planner from scanning a storage with several workers while it has no index on the outputs. Every plan names all
-- storages, and only the one that is served is read: a ranking over 300,000 rows went parallel for the sake of the one that was
-- being filled, and took 22 ms instead of 0.4. With this it stays a plan of index scans.
-- Fragments: storage (table). Grain: no rows.
ALTER TABLE {storage} SET (parallel_workers = 0)
