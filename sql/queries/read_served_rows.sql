-- Read what is served for some keys, in the run's snapshot.
-- Fragments: storage (table), key_arrays (array literals), key_names, key_matches, keys_read, outputs_read. Grain: one row per key.
SELECT {keys_read}, r.rejected, {outputs_read}
FROM {storage} AS r
JOIN unnest({key_arrays}) AS wanted({key_names}) ON {key_matches}
