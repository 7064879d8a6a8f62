-- A flight published since, and every flight of since's day or later when something that it shares with others moved:
-- the traffic of its hour, the delays of the last days, the weather at its airport.
SELECT f.flight_key
FROM since
JOIN ny.flights f ON f.flight_date >= (since.at AT TIME ZONE 'America/New_York')::date
WHERE EXISTS (SELECT FROM ny.flights other WHERE other.updated_at > since.at)
   OR EXISTS (SELECT FROM ny.flight_outcomes o WHERE o.updated_at > since.at)
   OR EXISTS (SELECT FROM ny.weather w WHERE w.origin = f.origin AND w.updated_at > since.at)
