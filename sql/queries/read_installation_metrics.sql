-- Read the clock that freshness is judged by, the server's version, and which migrations there are.
-- Parameters: none. Grain: one row; now in seconds since 1970.
SELECT extract(epoch FROM i.now)::double precision AS now, i.server_version, i.migrations, i.last_migration
FROM prescore.installation_health AS i
