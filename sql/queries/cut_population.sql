-- Cut the population into ranges of about as many keys each, in the run's snapshot.
-- Fragments: as_of (instant literal), entity_keys, entity_query, first_key (column of p), key_hash (bigint), shares (list of
-- numbers between 0 and 1), sample_every (integer literal): one key in so many is looked at, always the same ones.
-- Grain: one row per bound, ascending; keys from it on belong to the next range.
WITH run(as_of) AS NOT MATERIALIZED (SELECT {as_of}),
prescore_population AS (SELECT {entity_keys} FROM (
{entity_query}
) AS entities),
prescore_bounds AS (
    SELECT DISTINCT unnest(percentile_disc(ARRAY[{shares}]::double precision[]) WITHIN GROUP (ORDER BY {first_key})) AS bound
    FROM prescore_population AS p
    WHERE mod({key_hash}, {sample_every}) = 0
)
SELECT b.bound::text AS bound FROM prescore_bounds AS b WHERE b.bound IS NOT NULL ORDER BY b.bound
