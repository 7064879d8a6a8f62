-- What became of entities, for training: the key, as_of, and the label. as_of is the instant at which the prediction
-- would have been made; features.sql is read as of then. The label is what came out afterwards: text, number or boolean.
-- Only what was known at run.as_of may be told. The latest instants are held out to judge the model.
-- [training] labels in pipeline.toml names this file.
SELECT $outcome_keys, o.asked_at AS as_of, o.outcome AS label
FROM your_schema.your_outcomes AS o, run
WHERE o.known_at <= run.as_of
