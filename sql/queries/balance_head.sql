-- Keep the ledger of what is served right, from which rows were taken.
-- Parameters: pipeline (text), storage_id, rows, key_checksum (numeric: of the rows that went). Grain: one row, or none.
UPDATE prescore.head
SET rows = rows - :rows, key_checksum = key_checksum - :key_checksum
WHERE pipeline = :pipeline AND storage_id = :storage_id
