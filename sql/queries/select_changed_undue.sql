-- Select the keys that changes.sql names, at most so many, and which of them are served, where nothing that is served is due:
-- then the index of what is served knows all there is to know. Each key asks it: OFFSET 0 keeps the planner from reading all of
-- what is served to join a hundredth.
-- Fragments: since_at (instant literal), changed_keys, changes_query, storage (table), key_found (condition on served and
-- prescore_changed), keys_read, named_missing (condition on prescore_changed), key_hash_judged, most (integer literal).
-- Queries of users see the CTEs before them: none has a name that a table of theirs would have.
-- Grain: one row per key; prescore_hash is that of the ledger.
WITH since(at) AS NOT MATERIALIZED (SELECT {since_at}),
prescore_changed AS (SELECT DISTINCT {changed_keys} FROM (
{changes_query}
) AS changes LIMIT {most})
SELECT {keys_read}, judged.prescore_served, false AS prescore_due, {key_hash_judged} AS prescore_hash
FROM (
    SELECT prescore_changed.*, s.prescore_found IS NOT NULL AS prescore_served FROM prescore_changed
    LEFT JOIN LATERAL (SELECT true AS prescore_found FROM {storage} AS served WHERE {key_found} OFFSET 0) AS s ON true
    WHERE NOT ({named_missing})
) AS judged
