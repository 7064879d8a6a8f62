-- Write down that the rows of a lineage are in the history.
-- Parameters: pipeline (text), base, complete (boolean: all of them). Grain: one row.
UPDATE prescore.lineages SET storage_id = NULL, archived_at = clock_timestamp(), complete = :complete
WHERE pipeline = :pipeline AND base = :base
