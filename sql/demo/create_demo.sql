-- Create the demo's own database.
-- Parameters: none. Result: none.
CREATE DATABASE prescore_demo
