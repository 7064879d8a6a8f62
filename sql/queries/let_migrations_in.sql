-- Give back what kept migrations out, at once; closing the connection would do so a moment later.
-- Parameters: none. Grain: one row.
SELECT pg_advisory_unlock_shared(hashtextextended('prescore gate', 0)) AS released
