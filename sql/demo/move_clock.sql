-- Move the clock that freshness is judged by, in the demo's own database: a day passes, or a loader stays silent.
-- Parameters: ahead (interval, how far the clock runs ahead of the real one; put in by the driver on the client's side,
-- as a function's body takes no parameters).
-- Result: none.
CREATE OR REPLACE FUNCTION prescore.clock() RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT statement_timestamp() + :ahead $$
