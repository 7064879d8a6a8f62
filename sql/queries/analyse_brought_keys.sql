-- Let the planner know how many keys were brought from another server.
-- Fragments: table. Grain: no rows.
ANALYZE pg_temp.{table}
