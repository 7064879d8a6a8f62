-- The clock that judges freshness. It reads no table (a function in a view runs as the reader) and no setting (a
-- reader could set the time); tests and the demo replace it in a database of their own.
CREATE FUNCTION prescore.clock() RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT statement_timestamp() $$;

COMMENT ON FUNCTION prescore.clock() IS
    'The instant that freshness is judged at. statement_timestamp(), so that a long transaction still sees predictions go stale.';
