-- Clear what the planner remembers of a column.
-- Parameters: schemaname, tablename, attname (text), inherited (boolean). Grain: one row.
SELECT pg_catalog.pg_clear_attribute_stats(:schemaname, :tablename, :attname, :inherited)
