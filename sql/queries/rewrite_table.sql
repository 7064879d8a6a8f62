-- Write a table and its indexes anew: their files hold nothing then but what is visible to somebody. Readers wait.
-- Fragments: table. Grain: no rows.
VACUUM (FULL, ANALYZE) {table}
