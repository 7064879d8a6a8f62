-- List the names that a pipeline had.
-- Parameters: pipeline (text). Grain: one row per name, oldest first; use is alias, refused or free.
SELECT former, use, renamed_at FROM prescore.former_names WHERE pipeline = :pipeline ORDER BY renamed_at, former
