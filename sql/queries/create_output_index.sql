-- Index an output in one storage, for ranking and filtering through the usable rows, unless it is there. Rejected rows are
-- left out: they hold no prediction, and a descending order would put their NULLs first. Readers are not blocked.
-- Fragments: index (name), storage (table), output (column). Grain: no rows.
CREATE INDEX IF NOT EXISTS {index} ON {storage} ({output}) WHERE rejected IS NULL
