-- List the pipelines that this database knows, as everybody may read it who sees their health.
-- Grain: one row per pipeline.
SELECT pipeline FROM prescore.pipeline_health ORDER BY pipeline
