-- Create a view under the old name of a pipeline, for applications that still use it: the same columns, the same rows.
-- Fragments: view, target (views), columns (of target). Grain: no rows.
CREATE OR REPLACE VIEW {view} AS SELECT {columns} FROM {target}
