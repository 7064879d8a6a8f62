-- Flights of the five weeks before the run whose delay was published by then, each as of 03:00 New York of its day, when
-- it was (or would have been) scored. A cancelled flight never gets a label. A flight whose schedule was published or
-- amended after its own as_of is left out: what was known at that instant is no longer known.
SELECT f.flight_key,
       (f.flight_date + time '03:00') AT TIME ZONE 'America/New_York' AS as_of,
       (o.dep_delay_min > 15)::integer AS label
FROM run
JOIN ny.flights f ON f.flight_date >= (run.as_of AT TIME ZONE 'America/New_York')::date - 35
                 AND f.flight_date < (run.as_of AT TIME ZONE 'America/New_York')::date
JOIN ny.flight_outcomes o USING (flight_key)
WHERE o.dep_delay_min IS NOT NULL
  AND o.updated_at <= run.as_of
  AND f.updated_at <= (f.flight_date + time '03:00') AT TIME ZONE 'America/New_York'
