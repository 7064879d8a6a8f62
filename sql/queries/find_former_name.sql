-- Find the pipeline that had a name, unless the name was set free.
-- Parameters: former (text). Grain: one row, or none.
SELECT pipeline, use, renamed_at, renamed_by FROM prescore.former_names WHERE former = :former AND use <> 'free'
