-- Select the served entities that are due.
-- Fragments: storage (table), hidden (condition on served: a row without a prediction to show), due_before (instant literal),
-- keys_read, key_hash_judged. Grain: one row per entity; prescore_hash is that of the ledger.
SELECT {keys_read}, {key_hash_judged} AS prescore_hash
FROM (SELECT * FROM {storage} AS served WHERE {hidden} OR served.as_of <= {due_before}) AS judged
