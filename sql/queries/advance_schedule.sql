-- A scheduled publication covers the ticks up to its start.
-- Parameters: pipeline, mode (text), next_tick (instant). Grain: one row or none.
UPDATE prescore.schedules SET next_tick = greatest(next_tick, :next_tick) WHERE pipeline = :pipeline AND mode = :mode
