-- Create the schema of what the shop cannot see: the habits behind its customers' orders and visits.
-- Parameters: none. Result: none.
CREATE SCHEMA shop_world
