-- Give a table, index, view or function another name in its schema; what rests on it follows.
-- Fragments: kind (TABLE, INDEX, VIEW or FUNCTION), name (qualified; functions with their types), new_name (quoted). Grain: no rows.
ALTER {kind} {name} RENAME TO {new_name}
