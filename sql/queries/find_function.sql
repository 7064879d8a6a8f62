-- Find a function by name and types of its arguments.
-- Parameters: signature (text: qualified, with types). Grain: one row; oid is NULL where there is none.
SELECT to_regprocedure(:signature)::oid AS oid
