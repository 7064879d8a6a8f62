-- Read what a pipeline serves, and let nobody move head until the end of the transaction.
-- Parameters: pipeline (text). Grain: one row, or none before the first publication.
SELECT * FROM prescore.head WHERE pipeline = :pipeline FOR UPDATE
