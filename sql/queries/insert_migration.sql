-- Enter a migration into the ledger, before it is applied in the same transaction.
-- Parameters: name, checksum (SHA-256, hex). Grain: one row, or none when another migrator was first.
INSERT INTO prescore.migrations (name, checksum) VALUES (:name, :checksum) ON CONFLICT (name) DO NOTHING
