-- Count who needs a prediction, and fingerprint the population, in the run's snapshot: every key is looked up in what is served.
-- Fragments: as_of, since_at, due_before (instant literals), entity_keys, entity_query, storage (table), served_keys,
-- hidden (condition on served: a row without a prediction to show), changed_keys, changes_query, key_names, key_missing,
-- key_hash (of p).
-- The checksum is a sum of 64-bit hashes, not an XOR: pairs of duplicates would cancel.
-- Each CTE is read once, so that PostgreSQL merges it into the join and may share the work among its workers.
-- Queries of users see the CTEs before them: none has a name that a table of theirs would have.
-- Grain: one row.
WITH run(as_of) AS NOT MATERIALIZED (SELECT {as_of}),
since(at) AS NOT MATERIALIZED (SELECT {since_at}),
prescore_population AS (SELECT {entity_keys} FROM (
{entity_query}
) AS entities),
prescore_served AS (SELECT {served_keys}, served.as_of, {hidden} AS is_hidden FROM {storage} AS served),
prescore_changed AS (SELECT DISTINCT {changed_keys}, true AS is_changed FROM (
{changes_query}
) AS changes),
prescore_judged AS (
    SELECT {key_hash} AS hash, {key_missing} AS is_missing, s.as_of IS NULL AS is_new, c.is_changed IS TRUE AS is_changed,
           s.is_hidden OR s.as_of <= {due_before} AS is_due
    FROM prescore_population AS p
    LEFT JOIN prescore_served AS s USING ({key_names})
    LEFT JOIN prescore_changed AS c USING ({key_names})
)
SELECT count(*) AS population,
       coalesce(sum(hash), 0)::text AS key_checksum,
       coalesce(sum(hash) FILTER (WHERE is_new OR is_changed OR is_due), 0)::text AS selected_checksum,
       count(*) FILTER (WHERE is_missing) AS null_keys,
       count(*) FILTER (WHERE is_new) AS new,
       count(*) FILTER (WHERE NOT is_new AND is_changed) AS changed,
       count(*) FILTER (WHERE NOT is_new AND NOT is_changed AND is_due) AS due,
       (SELECT count(*) FROM {storage}) - count(*) FILTER (WHERE NOT is_new) AS gone
FROM prescore_judged
