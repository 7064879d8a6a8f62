-- Select the keys that changes.sql names, at most so many: which of them are served, and which of those are due as well.
-- Fragments: since_at, due_before (instant literals), changed_keys, changes_query, storage (table), served_keys, hidden
-- (condition on served), key_names, keys_read, named_missing (condition on prescore_changed), key_hash_judged, most (integer literal).
-- Queries of users see the CTEs before them: none has a name that a table of theirs would have.
-- Grain: one row per key; prescore_hash is that of the ledger.
WITH since(at) AS NOT MATERIALIZED (SELECT {since_at}),
prescore_changed AS (SELECT DISTINCT {changed_keys} FROM (
{changes_query}
) AS changes LIMIT {most})
SELECT {keys_read}, judged.prescore_due IS NOT NULL AS prescore_served, coalesce(judged.prescore_due, false) AS prescore_due,
       {key_hash_judged} AS prescore_hash
FROM (
    SELECT * FROM prescore_changed
    LEFT JOIN (SELECT {served_keys}, {hidden} OR served.as_of <= {due_before} AS prescore_due FROM {storage} AS served) AS s
    USING ({key_names})
    WHERE NOT ({named_missing})
) AS judged
