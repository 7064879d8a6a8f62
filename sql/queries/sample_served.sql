-- Select a random sample of the served entities that are not due.
-- Fragments: storage (table), hidden (condition on served: a row without a prediction to show), due_before (instant literal),
-- keys_read, share (percent of the rows), seed (integer literal). Grain: one row per entity, with its own as_of.
SELECT {keys_read}, judged.as_of
FROM (
    SELECT * FROM {storage} AS served TABLESAMPLE BERNOULLI ({share}) REPEATABLE ({seed})
    WHERE NOT ({hidden} OR served.as_of <= {due_before})
) AS judged
