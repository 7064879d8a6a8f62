-- Say since when a full run is due that no scheduled publication covers yet.
-- Parameters: pipeline (text). Grain: one row or none.
SELECT next_tick FROM prescore.schedules WHERE pipeline = :pipeline AND mode = 'full' AND next_tick <= prescore.clock()
