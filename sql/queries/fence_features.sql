-- Work the columns of a feature query out once, however often the statement around it names them: OFFSET 0 keeps PostgreSQL
-- from putting the expression of a column in each of its places.
-- Fragments: feature_query. Grain: as the query returns them.
SELECT * FROM (
{feature_query}
) AS features OFFSET 0
