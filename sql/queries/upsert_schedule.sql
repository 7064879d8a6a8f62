-- Keep what a schedule promises. The next tick stays, unless the schedule itself changed, or the clock was ahead once: what was
-- covered then is still to come.
-- Parameters: pipeline, mode, timezone (text), crons (text[]), grace (interval), next_tick (instant). Grain: one row.
INSERT INTO prescore.schedules AS s (pipeline, mode, crons, timezone, grace, next_tick)
VALUES (:pipeline, :mode, :crons, :timezone, :grace, :next_tick)
ON CONFLICT (pipeline, mode) DO UPDATE
SET crons = excluded.crons, timezone = excluded.timezone, grace = excluded.grace,
    next_tick = CASE WHEN (s.crons, s.timezone) IS DISTINCT FROM (excluded.crons, excluded.timezone)
                     THEN excluded.next_tick ELSE least(s.next_tick, excluded.next_tick) END
