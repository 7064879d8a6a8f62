-- Read which generation a pipeline serves, in the snapshot of the session that copies its rows.
-- Fragments: pipeline (text literal). Grain: one row, or none before the first publication.
SELECT generation_id FROM prescore.head WHERE pipeline = {pipeline}
