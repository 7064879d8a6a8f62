-- Let an alias name a version from an instant on; the caller has ended what it named before.
-- Parameters: model, alias, version, since (instant, or NULL for now), because, went_back
-- (boolean: a rollback). Grain: one row.
INSERT INTO prescore.aliases (model, alias, version, since, because, went_back)
VALUES (:model, :alias, :version, coalesce(CAST(:since AS timestamptz), clock_timestamp()), :because, :went_back)
