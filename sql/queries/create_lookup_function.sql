-- Create the lookup of one entity: always exactly one row, state missing where there is none, and why. An SQL function that
-- Postgres inlines: a plpgsql one can mix two publications. Its body is parsed here, once: parsed by the reader, as a
-- body in quotes is, it would need rights on the schema prescore. OFFSET 0 keeps the row in one piece: without it the
-- expressions of the view are planned again wherever they are used, which took a lookup that is not prepared 1.2 ms more.
-- Its columns are its own, not those of the row type of the view: a statement that was parsed before the view got another
-- column, and planned after, would find a body that does not fit that type any more.
-- Fragments: function, view (relations), arguments, columns (names and types), key_arguments, key_matches,
-- outputs_within (each behind a comma),
-- too_stale, max_stale, pipeline (text literal). Grain: no rows.
CREATE OR REPLACE FUNCTION {function}({arguments}, max_stale interval DEFAULT NULL) RETURNS TABLE ({columns})
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT {key_arguments},
           CASE WHEN p.state IS NULL THEN 'missing' WHEN {too_stale} THEN 'expired' ELSE p.state END,
           p.age, p.data_as_of, p.as_of, p.aging_at, p.stale_at, p.expires_at,
           CASE WHEN p.state = 'stale'
                    THEN greatest(least(p.cache_for, p.stale_at + {max_stale} - prescore.clock()), interval '0')
                ELSE p.cache_for END,
           CASE WHEN p.state IS NULL THEN prescore.why_missing({pipeline}) ELSE p.reasons END,
           p.model_version, p.scored_in{outputs_within}
    FROM (SELECT 1) AS always
    LEFT JOIN (SELECT * FROM {view} AS p WHERE {key_matches} OFFSET 0) AS p ON true;
END
