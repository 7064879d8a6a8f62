-- Create a lookup under the old name of a pipeline, for applications that still use it; PostgreSQL inlines it too.
-- Fragments: function, target (functions), arguments, columns (names and types), parameters. Grain: no rows.
CREATE OR REPLACE FUNCTION {function}({arguments}, max_stale interval DEFAULT NULL) RETURNS TABLE ({columns})
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT * FROM {target}({parameters});
END
