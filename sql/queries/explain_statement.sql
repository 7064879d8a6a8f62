-- Ask the planner which tables a statement reads; it is not run.
-- Fragments: statement. Grain: one row, the plan as JSON.
EXPLAIN (VERBOSE, FORMAT JSON)
{statement}
