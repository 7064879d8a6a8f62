-- Find the transaction that renamed a pipeline last, unless nobody can see the state before it any more.
-- Parameters: pipeline (text). Grain: one row; xid is NULL where there is none.
SELECT max(renamed_xid::text::numeric)::text AS xid FROM prescore.former_names WHERE pipeline = :pipeline
