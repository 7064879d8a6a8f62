-- Name the entities whose rows of a dataset changed, as a changes query does.
-- Fragments: key_names, key_arrays (array literals). Grain: one row per entity.
SELECT {key_names} FROM unnest({key_arrays}) AS changed({key_names})
