-- Create the lookup of one entity: always exactly one row, state missing where there is none. An SQL function that
-- Postgres inlines: a plpgsql one can mix two publications. Its body is parsed here, once: parsed by the reader, as a
-- body in quotes is, it would need rights on the schema prescore.
-- Fragments: function, view (relations), arguments, key_arguments, key_matches, outputs_within, max_stale. Grain: no rows.
CREATE FUNCTION {function}({arguments}, max_stale interval DEFAULT NULL) RETURNS SETOF {view}
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT {key_arguments},
           CASE WHEN p.state IS NULL THEN 'missing' WHEN l.too_stale THEN 'expired' ELSE p.state END,
           p.age, p.data_as_of, p.as_of, p.aging_at, p.stale_at, p.expires_at,
           CASE WHEN l.too_stale THEN interval '0'
                WHEN p.state = 'stale' THEN least(p.cache_for, p.stale_at + {max_stale} - prescore.clock())
                ELSE p.cache_for END,
           p.reasons, p.model_version, p.scored_in,
           {outputs_within}
    FROM (SELECT 1) AS always
    LEFT JOIN {view} AS p ON {key_matches}
    CROSS JOIN LATERAL (
        SELECT coalesce(p.state = 'stale' AND prescore.clock() >= p.stale_at + {max_stale}, false) AS too_stale
    ) AS l;
END
