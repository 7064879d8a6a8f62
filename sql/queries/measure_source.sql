-- Measure how new a source is, in the run's snapshot: its newest plausible row, rows from the future, rows without a date.
-- Fragments: source (table), watermark (expression, timestamptz), latest (instant literal: as_of and the tolerated skew),
-- future (instant literal: the clock and the tolerated skew), condition (the declared filter, or true), relation (text literal). The row count is the planner's estimate.
-- Grain: one row.
-- The condition stands on lines of its own: a comment may end it.
SELECT (SELECT max({watermark}) FROM {source} AS source WHERE (
{condition}
) AND {watermark} <= {latest}) AS newest,
       (SELECT count(*) FROM {source} AS source WHERE (
{condition}
) AND {watermark} > {future}) AS future,
       (SELECT count(*) FROM {source} AS source WHERE (
{condition}
) AND {watermark} IS NULL) AS undated,
       greatest((SELECT reltuples::bigint FROM pg_catalog.pg_class WHERE oid = to_regclass({relation})), 0) AS n
