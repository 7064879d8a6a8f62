-- Let a control table call a pipeline by another name; a part of rename_records.
-- Fragments: table. Parameters: former, pipeline (text). Grain: no rows.
UPDATE {table} SET pipeline = :pipeline WHERE pipeline = :former
