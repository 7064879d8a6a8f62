-- Remove a table, view or function; refused by PostgreSQL while anything is built on it.
-- Fragments: kind (TABLE, VIEW or FUNCTION), name (qualified; functions with their types). Grain: no rows.
DROP {kind} IF EXISTS {name} RESTRICT
