-- Select the entities that an incremental run scores, and a random sample of those that it skips.
-- Fragments: as in summarise_population, and keys_read, sampled_as_of (instant), key_hash_seeded (of p), sample_every (integer
-- literal).
-- A sampled entity is scored again at its own as_of and must agree with what is served.
-- Queries of users see the CTEs before them: none has a name that a table of theirs would have.
-- Grain: one row per entity; why is new, changed, due or sampled.
WITH run(as_of) AS NOT MATERIALIZED (SELECT {as_of}),
since(at) AS NOT MATERIALIZED (SELECT {since_at}),
prescore_population AS (SELECT {entity_keys} FROM (
{entity_query}
) AS entities),
prescore_served AS (SELECT {served_keys}, served.as_of, {hidden} AS is_hidden FROM {storage} AS served),
prescore_changed AS (SELECT DISTINCT {changed_keys}, true AS is_changed FROM (
{changes_query}
) AS changes),
judged AS (
    SELECT {keys_of_p_named}, s.as_of AS served_as_of,
           CASE WHEN s.as_of IS NULL THEN 'new'
                WHEN c.is_changed THEN 'changed'
                WHEN s.is_hidden OR s.as_of <= {due_before} THEN 'due'
                WHEN mod({key_hash_seeded}, {sample_every}) = 0 THEN 'sampled'
           END AS why
    FROM prescore_population AS p
    LEFT JOIN prescore_served AS s USING ({key_names})
    LEFT JOIN prescore_changed AS c USING ({key_names})
)
SELECT {keys_read}, CASE WHEN why = 'sampled' THEN {sampled_as_of} ELSE {as_of} END AS as_of, why
FROM judged
WHERE why IS NOT NULL
