-- Rows are vouched for by head where fingerprints are kept, too.
COMMENT ON COLUMN prescore.generations.time_invariant IS 'Unchanged rows share the age of head: features do not depend on as_of, or each run compares those of everybody.';
COMMENT ON COLUMN prescore.head.time_invariant IS 'Unchanged rows share the age of head: features do not depend on as_of, or each run compares those of everybody.';
