-- Let customers look around in the shop, and load what becomes known in (since, until].
-- Parameters: since and until (timestamptz; since may be -infinity).
-- Result: none; one row per visit, in the order of loading. Loading (a, b] and then (b, c] gives the rows of (a, c].
-- As in place_orders.sql: slots of 0.45 gaps with at most one visit in each. Who left still comes by now and then; one
-- customer in five refuses to be recognised, and none of those visits is recorded.
INSERT INTO shop.visits (customer_id, visited_at, pages, loaded_at)
SELECT v.customer_id, v.visited_at, v.pages, v.loaded_at
FROM (
    SELECT
        s.customer_id,
        s.visited_at,
        CASE
            WHEN shop_world.chance(s.key, 46) < 0.93 THEN 1 + floor(14 * power(shop_world.chance(s.key, 45), 2))::integer
        END AS pages,
        s.visited_at + (1 + 3 * shop_world.chance(s.key, 44)) * interval '1 minute' AS loaded_at
    FROM (
        SELECT
            h.customer_id,
            h.left_at,
            h.customer_id * 10000 + k AS key,
            h.created_at
                + h.slot_days * (k - shop_world.chance(h.customer_id * 10000 + k, 41)) * interval '1 day' AS visited_at
        FROM (
            SELECT customer_id, created_at, left_at, 0.45 * gap_days AS slot_days
            FROM shop_world.habits
            WHERE shop_world.chance(customer_id, 40) < 0.8
        ) AS h
        CROSS JOIN LATERAL generate_series(
            CASE
                WHEN :since > h.created_at + interval '2 hours' THEN floor(
                    date_part('epoch', :since - interval '1 hour' - h.created_at)
                    / 86400 / h.slot_days
                )::integer
                ELSE 1
            END,
            ceil(date_part('epoch', :until - h.created_at) / 86400 / h.slot_days)::integer
        ) AS k
        WHERE k > 0
        OFFSET 0 -- reckon each moment once, not again wherever it is used
    ) AS s
    WHERE shop_world.chance(s.key, 42) < CASE
        WHEN s.visited_at >= s.left_at THEN 0.12
        WHEN s.visited_at >= s.left_at - interval '45 days' THEN 0.4
        ELSE 0.65
    END
) AS v
WHERE v.loaded_at > :since AND v.loaded_at <= :until
ORDER BY v.loaded_at, v.customer_id
