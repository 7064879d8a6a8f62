-- Touch head only if it is what the run started from; locks it until the end of the transaction.
-- Parameters: pipeline (text), generation_id (expected). Grain: one row, or none when another run published.
UPDATE prescore.head SET pipeline = pipeline WHERE pipeline = :pipeline AND generation_id = :generation_id RETURNING generation_id
