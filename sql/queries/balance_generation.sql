-- Keep the ledger of the last publication in a storage right, from which rows were taken: a rollback returns to it.
-- Parameters: pipeline (text), storage_id, rows, key_checksum (numeric: of the rows that went). Grain: at most one row.
UPDATE prescore.generations AS g
SET rows = g.rows - :rows, key_checksum = g.key_checksum - :key_checksum
FROM prescore.storages AS s
WHERE s.pipeline = :pipeline AND s.storage_id = :storage_id AND g.generation_id = s.generation_id AND g.pipeline = s.pipeline
