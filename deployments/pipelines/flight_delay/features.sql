-- What is known at as_of about each flight: its schedule, how late similar flights left in the eight days before, and the
-- newest weather at its airport. Counts stay counts here; preprocess() in model.py makes rates of them.
--
-- Training asks for a month of instants at once, so what many flights share is counted once per instant and joined,
-- not once per flight. Month, weekday and the like are left out on purpose: in five weeks of labels they do little but
-- name single days.
WITH instant AS (
    SELECT DISTINCT as_of, (as_of AT TIME ZONE 'America/New_York')::date AS today
    FROM batch
),
airport AS (
    SELECT DISTINCT b.as_of, f.origin
    FROM batch b
    JOIN ny.flights f USING (flight_key)
),
-- Flights that left, as published by as_of: at 03:00 the newest are of the day before yesterday. One published later,
-- or amended later, was not known yet.
departed AS MATERIALIZED (
    SELECT i.as_of, f.carrier, f.origin, f.dest, f.sched_dep_time / 100 AS dep_hour,
           count(*) AS n,
           count(*) FILTER (WHERE o.dep_delay_min > 15) AS late
    FROM instant i
    JOIN ny.flights f ON f.flight_date >= i.today - 8 AND f.flight_date < i.today
    JOIN ny.flight_outcomes o USING (flight_key)
    WHERE f.updated_at <= i.as_of
      AND o.updated_at <= i.as_of
      AND o.dep_delay_min IS NOT NULL
    GROUP BY i.as_of, f.carrier, f.origin, f.dest, f.sched_dep_time / 100
),
everywhere AS (
    SELECT as_of, sum(n) AS n, sum(late) AS late
    FROM departed
    GROUP BY as_of
),
by_carrier AS (
    SELECT as_of, carrier, origin, sum(n) AS n, sum(late) AS late
    FROM departed
    GROUP BY as_of, carrier, origin
),
by_hour AS (
    SELECT as_of, origin, dep_hour, sum(n) AS n, sum(late) AS late
    FROM departed
    GROUP BY as_of, origin, dep_hour
),
by_dest AS (
    SELECT as_of, dest, sum(n) AS n, sum(late) AS late
    FROM departed
    GROUP BY as_of, dest
),
-- How busy the airport is in the hour of the flight, by the schedule as published by as_of.
traffic AS (
    SELECT i.as_of, f.flight_date, f.origin, f.sched_dep_time / 100 AS dep_hour, count(*) AS n
    FROM instant i
    JOIN ny.flights f ON f.flight_date BETWEEN i.today - 1 AND i.today + 1
    WHERE f.updated_at <= i.as_of
    GROUP BY i.as_of, f.flight_date, f.origin, f.sched_dep_time / 100
),
-- An observation is published an hour after the hour it was made in. One older than six hours says nothing any more.
weather AS (
    SELECT DISTINCT ON (a.as_of, a.origin) a.as_of, a.origin, w.precip_in, w.visib_miles
    FROM airport a
    JOIN ny.weather w ON w.origin = a.origin
                     AND w.observed_hour_utc <= a.as_of - interval '1 hour'
                     AND w.observed_hour_utc > a.as_of - interval '6 hours'
                     AND w.updated_at <= a.as_of
    ORDER BY a.as_of, a.origin, w.observed_hour_utc DESC
)
SELECT b.flight_key, b.as_of,
       f.carrier, f.origin, f.distance_miles,
       -- 517 is 05:17; NULL for the few flights without a schedule, which are scored without it.
       f.sched_dep_time / 100 * 60 + f.sched_dep_time % 100 AS dep_minute_of_day,
       coalesce(traffic.n, 0)::integer AS departures_same_hour,
       coalesce(everywhere.n, 0)::integer AS departed_8d,
       coalesce(everywhere.late, 0)::integer AS late_8d,
       coalesce(by_carrier.n, 0)::integer AS carrier_departed_8d,
       coalesce(by_carrier.late, 0)::integer AS carrier_late_8d,
       coalesce(by_hour.n, 0)::integer AS hour_departed_8d,
       coalesce(by_hour.late, 0)::integer AS hour_late_8d,
       coalesce(by_dest.n, 0)::integer AS dest_departed_8d,
       coalesce(by_dest.late, 0)::integer AS dest_late_8d,
       weather.precip_in,
       weather.visib_miles
FROM batch b
JOIN ny.flights f USING (flight_key)
LEFT JOIN everywhere ON everywhere.as_of = b.as_of
LEFT JOIN by_carrier ON by_carrier.as_of = b.as_of AND by_carrier.carrier = f.carrier
                    AND by_carrier.origin = f.origin
LEFT JOIN by_hour ON by_hour.as_of = b.as_of AND by_hour.origin = f.origin
                 AND by_hour.dep_hour = f.sched_dep_time / 100
LEFT JOIN by_dest ON by_dest.as_of = b.as_of AND by_dest.dest = f.dest
LEFT JOIN traffic ON traffic.as_of = b.as_of AND traffic.flight_date = f.flight_date AND traffic.origin = f.origin
                 AND traffic.dep_hour = f.sched_dep_time / 100
LEFT JOIN weather ON weather.as_of = b.as_of AND weather.origin = f.origin
