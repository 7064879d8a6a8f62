-- Name the pipelines that have run here.
-- Parameters: none. Grain: one row per pipeline.
SELECT pipeline FROM prescore.pipelines ORDER BY pipeline
