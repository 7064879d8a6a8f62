-- Move the last rows of a lineage to the history, all of them: no later lineage tells of them.
-- Fragments: history, storage (tables), columns (of r: key, outputs), targets (names of these). Parameters: base. Grain: one row per
-- kept row.
INSERT INTO {history} ({targets}, prescore_base, as_of, scored_in, prescore_replaced_in, rejected)
SELECT {columns}, :base, r.as_of, r.scored_in, NULL, r.rejected FROM {storage} AS r
