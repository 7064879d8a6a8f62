-- Drop the demo's database of the last time, whoever is still connected.
-- Parameters: none. Result: none.
DROP DATABASE IF EXISTS prescore_demo WITH (FORCE)
