-- Count the predictions that were kept of one model version.
-- Fragments: pipeline (text literal), model_version (integer), after, until (instant literals, over as_of). Grain: one row.
SELECT count(*) AS samples
FROM prescore.generations AS g
JOIN prescore.prediction_samples AS s USING (pipeline, generation_id)
WHERE g.pipeline = {pipeline} AND g.as_of > {after} AND g.as_of <= {until} AND s.model_version = {model_version}
