-- Say whether the server can clear what the planner remembers of a column: PostgreSQL 18 can.
-- Grain: one row.
SELECT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE proname = 'pg_clear_attribute_stats') AS it_can
