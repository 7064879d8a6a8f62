-- End what an alias names now; the caller holds lock_model and names its next version in the same transaction.
-- Parameters: model, alias. Grain: the row that ended, or none when the alias names nothing.
UPDATE prescore.aliases
SET until = greatest(since, clock_timestamp())
WHERE model = :model AND alias = :alias AND until IS NULL
RETURNING until
