-- List the pipelines that this database knows.
-- Grain: one row per pipeline.
SELECT pipeline FROM prescore.pipelines ORDER BY pipeline
