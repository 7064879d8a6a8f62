-- Count who needs a prediction, and fingerprint the population, in the run's snapshot.
-- Fragments: as_of, since_at, due_before (instant literals), entity_keys, entity_query, storage (table), served_keys,
-- served_where, hidden (condition on served: a row without a prediction to show), changed_keys, changes_query, key_hash
-- (bigint: their sum is a numeric, and exact), key_names, key_missing.
-- The checksum is a sum of 64-bit hashes, not an XOR: pairs of duplicates would cancel.
-- Queries of users see the CTEs before them: none has a name that a table of theirs would have.
-- Grain: one row.
WITH run(as_of) AS NOT MATERIALIZED (SELECT {as_of}),
since(at) AS NOT MATERIALIZED (SELECT {since_at}),
prescore_population AS (SELECT {entity_keys} FROM (
{entity_query}
) AS entities),
prescore_served AS (SELECT {served_keys}, served.as_of, {hidden} AS is_hidden FROM {storage} AS served
           WHERE {served_where}),
prescore_changed AS (SELECT DISTINCT {changed_keys}, true AS is_changed FROM (
{changes_query}
) AS changes)
SELECT count(*) AS population,
       coalesce(sum({key_hash}), 0)::text AS key_checksum,
       coalesce(sum({key_hash})
                    FILTER (WHERE s.as_of IS NULL OR c.is_changed OR s.is_hidden OR s.as_of <= {due_before}), 0)::text
           AS selected_checksum,
       count(*) FILTER (WHERE {key_missing}) AS null_keys,
       count(*) FILTER (WHERE s.as_of IS NULL) AS new,
       count(*) FILTER (WHERE s.as_of IS NOT NULL AND c.is_changed) AS changed,
       count(*) FILTER (WHERE s.as_of IS NOT NULL AND c.is_changed IS NULL
                          AND (s.is_hidden OR s.as_of <= {due_before})) AS due,
       (SELECT count(*) FROM prescore_served) - count(s.as_of) AS gone,
       (SELECT count(*) FROM prescore_served) AS served
FROM prescore_population AS p
LEFT JOIN prescore_served AS s USING ({key_names})
LEFT JOIN prescore_changed AS c USING ({key_names})
