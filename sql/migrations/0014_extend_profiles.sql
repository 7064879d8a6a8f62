-- What of a column lies in the tails of training, and unseen categories that cannot be told are unknown, not none.
ALTER TABLE prescore.profiles
    ADD COLUMN tails bigint NOT NULL DEFAULT 0,
    ALTER COLUMN unseen DROP NOT NULL,
    ALTER COLUMN unseen DROP DEFAULT;
COMMENT ON COLUMN prescore.profiles.unseen IS 'Categories that training did not see, and numbers between its values that no bin holds; NULL where that is unknown.';
COMMENT ON COLUMN prescore.profiles.tails IS 'Numbers outside the quantiles 0.001 and 0.999 of training, those under and over included.';
