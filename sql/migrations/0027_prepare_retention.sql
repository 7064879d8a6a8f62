-- What is past its retention is removed once a day; removing a run asks for its publication, so that needs an index.
ALTER TABLE prescore.pipelines ADD COLUMN past_removed_at timestamptz;
COMMENT ON COLUMN prescore.pipelines.past_removed_at IS 'When all that was past [retention] was last removed, by prescore.clock(); NULL before that.';

CREATE INDEX generations_by_run ON prescore.generations (run_id);
CREATE INDEX quarantines_by_generation ON prescore.quarantines (generation_id);
