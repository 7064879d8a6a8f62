-- Follow a lineage from here on.
-- Parameters: pipeline (text), base (its full generation, written down already), storage_id. Grain: one row, or none when it is followed.
INSERT INTO prescore.lineages (pipeline, base, as_of, storage_id)
SELECT pipeline, generation_id, as_of, CAST(:storage_id AS smallint)
FROM prescore.generations WHERE pipeline = :pipeline AND generation_id = :base
ON CONFLICT (pipeline, base) DO NOTHING
