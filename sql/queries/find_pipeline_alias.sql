-- Read which model and alias a pipeline scores with.
-- Parameters: pipeline (text). Grain: one row.
SELECT model, alias FROM prescore.pipelines WHERE pipeline = :pipeline
