-- Look one entity up, as an SQL reader would.
-- Fragments: function (the pipeline's lookup function), arguments (one cast parameter per key column). Parameters: key_0,
-- key_1, ... (text). Grain: one row.
SELECT * FROM {function}({arguments})
