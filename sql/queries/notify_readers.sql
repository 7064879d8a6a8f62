-- Tell caches that a pipeline published.
-- Parameters: pipeline (text). Grain: one row.
SELECT pg_notify('prescore', :pipeline)
