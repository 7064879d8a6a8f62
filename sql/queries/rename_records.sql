-- Let all control tables call a pipeline by another name, in one statement: what refers to each other changes at once.
-- Fragments: updates (one UPDATE per table, each a part of WITH). Parameters: former, pipeline (text). Grain: one row.
WITH {updates} SELECT 1 AS done
