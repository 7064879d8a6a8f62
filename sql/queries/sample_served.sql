-- Select a random sample of the served entities that are not due.
-- Fragments: storage (table), hidden (condition on served: a row without a prediction to show), due_before (instant literal),
-- keys_read, share (percent of the rows), seed (integer literal), sampled_as_of
-- (instant). Grain: one row per entity.
SELECT {keys_read}, {sampled_as_of} AS as_of
FROM (
    SELECT *, served.as_of AS served_as_of FROM {storage} AS served TABLESAMPLE BERNOULLI ({share}) REPEATABLE ({seed})
    WHERE NOT ({hidden} OR served.as_of <= {due_before})
) AS judged
