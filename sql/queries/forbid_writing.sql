-- Let every transaction of this connection be read only from here on; PostgreSQL refuses what would write.
-- No parameters. Grain: none.
SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY
