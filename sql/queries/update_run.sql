-- Write what is known of a run so far.
-- Fragments: assignments (column = :parameter, ...). Parameters: run_id, and one per assignment. Grain: one row.
UPDATE prescore.runs SET {assignments} WHERE run_id = :run_id
