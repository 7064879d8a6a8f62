-- Give a column of documents the type that it has, which makes the planner forget it; nothing is rewritten.
-- Fragments: table, column. Grain: no rows.
ALTER TABLE {table} ALTER COLUMN {column} TYPE jsonb
