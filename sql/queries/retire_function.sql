-- Give a function another name: statements that have found it already, and what others built on it, go on with it.
-- Fragments: signature (qualified, with types), retired (name). Grain: no rows.
ALTER FUNCTION {signature} RENAME TO {retired}
