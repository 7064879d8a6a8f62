-- Create chance(key, draw): a number in [0, 1) that looks random and is the same each time it is asked.
-- A hash and not random(): rows do not depend on the plan, the number of workers or the PostgreSQL version (15 to 18),
-- and tomorrow's orders of a customer continue today's.
-- Parameters: none. Result: none.
CREATE FUNCTION shop_world.chance(key bigint, draw integer) RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$ SELECT (hashint8extended(key, draw) & 9007199254740991)::double precision / 9007199254740992 $$
