-- Let PostgreSQL judge the condition that a source's rows have to meet; no row is read.
-- Fragments: source (table), condition, on lines of its own: a comment may end it. Grain: no rows.
SELECT 1 AS one FROM {source} AS source WHERE (
{condition}
) LIMIT 0
