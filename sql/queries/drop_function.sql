-- Remove a function; refused by PostgreSQL while anything is built on it.
-- Fragments: signature (qualified, with types). Grain: no rows.
DROP FUNCTION IF EXISTS {signature}
