-- Count the rows of a storage that updates and deletes left behind, and those that are alive, as PostgreSQL keeps count.
-- Parameters: storage (text: table, quoted). Grain: one row.
SELECT pg_stat_get_dead_tuples(CAST(:storage AS regclass)) AS dead, pg_stat_get_live_tuples(CAST(:storage AS regclass)) AS live
