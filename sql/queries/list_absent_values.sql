-- List the values of a reference table that no row of a slice has.
-- Fragments: source, reference (tables), column (in both), between (condition on the watermark), condition (the declared
-- filter, or true).
-- Grain: one row per value.
SELECT {column} FROM {reference} WHERE {column} IS NOT NULL EXCEPT SELECT source.{column} FROM {source} AS source WHERE (
{condition}
) AND {between}
