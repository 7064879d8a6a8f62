-- Write how a run ended, unless that is known already (published by its own transaction, or found dead by the next).
-- Fragments: assignments (column = :parameter, ...). Parameters: run_id, and one per assignment. Grain: one row or none.
UPDATE prescore.runs SET {assignments}, ended_at = clock_timestamp() WHERE run_id = :run_id AND status = 'running'
