-- Enter the three storages of a new pipeline: the first full run fills storage 1.
-- Parameters: pipeline (text). Grain: three rows.
INSERT INTO prescore.storages (pipeline, storage_id, role)
VALUES (:pipeline, 1, 'next'), (:pipeline, 2, 'previous'), (:pipeline, 3, 'current')
