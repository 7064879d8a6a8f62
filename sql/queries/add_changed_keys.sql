-- Name the entities that a changes query names, and those whose rows of a dataset changed.
-- Fragments: key_names, changes_query, key_arrays (array literals). Grain: one row per entity and reason.
SELECT {key_names} FROM (
{changes_query}
) AS own
UNION ALL
SELECT {key_names} FROM unnest({key_arrays}) AS changed({key_names})
