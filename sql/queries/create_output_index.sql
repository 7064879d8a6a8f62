-- Index an output in every storage, for ranking and filtering through the usable rows. Rejected rows are left out: they
-- hold no prediction, and a descending order would put their NULLs first.
-- Fragments: rows (table), output (column). Grain: no rows.
CREATE INDEX ON {rows} ({output}) WHERE rejected IS NULL
