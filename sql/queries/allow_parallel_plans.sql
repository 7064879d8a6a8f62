-- Let the planner scan a storage, and PostgreSQL build its indexes, with as many workers as its size asks for.
-- Needs no lock that readers hold. Fragments: storage (table). Grain: no rows.
ALTER TABLE {storage} RESET (parallel_workers)
