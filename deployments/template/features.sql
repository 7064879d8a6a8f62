-- What the model sees of an entity at an instant: the key, as_of and the features. Exactly one row for each row of
-- batch(key, as_of), which prescore supplies: the entities of a run, and in training every row of labels.sql.
$features_note
SELECT
    $batch_keys,
    b.as_of,
$feature_columns
FROM batch AS b
JOIN $table AS t USING ($keys)

-- Features from a table of events: cut it at b.as_of by the time a row reached you, so that training learns from what was
-- known then and not from what became known later. LEFT JOIN: an entity without events still gets its row.
--
--     count(e.loaded_at) AS events_90d,
--     max(e.happened_at) AS last_event_at
-- FROM batch AS b
-- JOIN $table AS t USING ($keys)
-- LEFT JOIN your_schema.your_events AS e ON $event_match
--                                       AND e.loaded_at <= b.as_of
--                                       AND e.happened_at >= b.as_of - interval '90 days'
-- GROUP BY $batch_keys, b.as_of, and the columns of t that are selected
