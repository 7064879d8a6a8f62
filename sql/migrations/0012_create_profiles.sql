-- What each run's columns looked like, counted into the frozen bins of its model: the memory that drift is judged with.
CREATE TABLE prescore.profiles (
    run_id        bigint           NOT NULL REFERENCES prescore.runs ON DELETE CASCADE,
    kind          text             NOT NULL CHECK (kind IN ('feature', 'output')),
    name          text             NOT NULL,
    pipeline      text             NOT NULL,
    generation_id bigint,
    model         text             NOT NULL,
    model_version integer          NOT NULL,
    rows          bigint           NOT NULL,
    nulls         bigint           NOT NULL DEFAULT 0,
    nans          bigint           NOT NULL DEFAULT 0,
    infinities    bigint           NOT NULL DEFAULT 0,
    under         bigint           NOT NULL DEFAULT 0,
    over          bigint           NOT NULL DEFAULT 0,
    unseen        bigint           NOT NULL DEFAULT 0,
    minimum       double precision,
    maximum       double precision,
    mean          double precision,
    m2            double precision,
    counts        bigint[]         NOT NULL DEFAULT '{}',
    sums          double precision[],
    digest        numeric          NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, kind, name)
);
CREATE INDEX profiles_by_pipeline ON prescore.profiles (pipeline, run_id DESC);
COMMENT ON TABLE prescore.profiles IS 'One row per run and column: its values counted into the bins that were frozen when the model was trained.';
COMMENT ON COLUMN prescore.profiles.run_id IS 'Run that counted.';
COMMENT ON COLUMN prescore.profiles.kind IS 'feature: as the feature query returns it; output: as it is predicted.';
COMMENT ON COLUMN prescore.profiles.name IS 'Name of the column.';
COMMENT ON COLUMN prescore.profiles.pipeline IS 'Pipeline of the run.';
COMMENT ON COLUMN prescore.profiles.generation_id IS 'Generation that the run scored in; published only when the run says so.';
COMMENT ON COLUMN prescore.profiles.model IS 'Model whose bins were used.';
COMMENT ON COLUMN prescore.profiles.model_version IS 'Version of that model: counts of two versions cannot be compared.';
COMMENT ON COLUMN prescore.profiles.rows IS 'Values that were counted, of every kind.';
COMMENT ON COLUMN prescore.profiles.nulls IS 'NULL values.';
COMMENT ON COLUMN prescore.profiles.nans IS 'NaN values.';
COMMENT ON COLUMN prescore.profiles.infinities IS 'Infinite values.';
COMMENT ON COLUMN prescore.profiles.under IS 'Values below everything that training saw.';
COMMENT ON COLUMN prescore.profiles.over IS 'Values above everything that training saw.';
COMMENT ON COLUMN prescore.profiles.unseen IS 'Categories that training did not see.';
COMMENT ON COLUMN prescore.profiles.minimum IS 'Smallest finite value.';
COMMENT ON COLUMN prescore.profiles.maximum IS 'Largest finite value.';
COMMENT ON COLUMN prescore.profiles.mean IS 'Mean of the finite values.';
COMMENT ON COLUMN prescore.profiles.m2 IS 'Sum of the squared distances from the mean.';
COMMENT ON COLUMN prescore.profiles.counts IS 'Values in each bin, in the order of the bins of the model: single values or categories first, then ranges.';
COMMENT ON COLUMN prescore.profiles.sums IS 'Outputs: the sum of the values in each bin.';
COMMENT ON COLUMN prescore.profiles.digest IS 'Order-independent fingerprint of the values: equal when nothing about the column changed.';
