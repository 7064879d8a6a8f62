-- Select a random sample of the served entities that are not due.
-- Fragments: storage (table), hidden (condition on served: a row without a prediction to show), due_before (instant literal),
-- keys_read, share (percent of the pages), key_hash_seeded (of served), of_a_page (integer literal: one in so many rows of
-- them), seed (integer literal), sampled_as_of (instant). Grain: one row per entity.
SELECT {keys_read}, {sampled_as_of} AS as_of
FROM (
    SELECT *, served.as_of AS served_as_of FROM {storage} AS served TABLESAMPLE SYSTEM ({share}) REPEATABLE ({seed})
    WHERE mod({key_hash_seeded}, {of_a_page}) = 0 AND NOT ({hidden} OR served.as_of <= {due_before})
) AS judged
