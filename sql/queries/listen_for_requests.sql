-- Be woken when somebody asks a run to end.
-- Parameters: none. Grain: none.
LISTEN prescore_runs
