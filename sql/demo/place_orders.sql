-- Let customers order, each in a rhythm of their own, and load what becomes known in (since, until].
-- Parameters: since and until (timestamptz; since may be -infinity).
-- Result: none; one row per order, in the order of loading. Loading (a, b] and then (b, c] gives the rows of (a, c].
-- A customer's time is cut into slots as long as the gap, with at most one order in each, at any moment of the slot.
-- What is ordered follows the customer's taste (habits), so that past orders say something about the next: of 100 orders
-- 35 are for one of four regulars, 15 for what goes with one of them (what has its place on the shelf beside), 30 for
-- anything from the two favourite shelves, 20 for anything at all. The front of a shelf is what most people buy.
INSERT INTO shop.orders (customer_id, product_id, quantity, amount, ordered_at, loaded_at)
SELECT
    o.customer_id,
    o.product_id,
    o.quantity,
    round(o.quantity * p.price * CASE WHEN shop_world.chance(o.key, 37) < 0.2 THEN 0.85 ELSE 1 END, 2),
    o.ordered_at,
    o.loaded_at
FROM (
    SELECT
        s.key,
        s.customer_id,
        s.ordered_at,
        s.ordered_at + (1 + 5 * shop_world.chance(s.key, 34)) * interval '1 minute' AS loaded_at,
        -- twelve shelves (categories) side by side, 42 products on each: see stock_products.sql
        1 + CASE
            WHEN w.whim < 0.35 THEN w.shelf
            WHEN w.whim < 0.50 THEN (w.shelf + 1) % 12
            WHEN w.whim < 0.80 THEN CASE WHEN shop_world.chance(s.key, 39) < 0.7 THEN s.favourite ELSE s.second END
            ELSE floor(12 * power(shop_world.chance(s.key, 39), 1.3))::integer
        END
        + 12 * floor(42 * power(
            CASE
                WHEN w.whim < 0.50 THEN shop_world.chance(s.customer_id * 10000 + w.regular, 24)
                ELSE shop_world.chance(s.key, 35)
            END, 1.7
        ))::bigint AS product_id,
        1 + floor(4 * power(shop_world.chance(s.key, 36), 3))::integer AS quantity
    FROM (
        SELECT
            h.customer_id,
            h.left_at,
            h.favourite,
            h.second,
            h.customer_id * 10000 + k AS key,
            k = 0 AS at_sign_up,
            CASE k
                WHEN 0 THEN h.created_at + shop_world.chance(h.customer_id * 10000, 31) * interval '1 hour'
                ELSE h.created_at
                    + h.gap_days * (k - shop_world.chance(h.customer_id * 10000 + k, 31)) * interval '1 day'
            END AS ordered_at
        FROM shop_world.habits AS h
        CROSS JOIN LATERAL generate_series(
            CASE
                WHEN :since > h.created_at + interval '2 hours' THEN floor(
                    date_part('epoch', :since - interval '1 hour' - h.created_at)
                    / 86400 / h.gap_days
                )::integer
                ELSE 0
            END,
            ceil(
                date_part('epoch', :until - h.created_at) / 86400 / h.gap_days
            )::integer
        ) AS k
        OFFSET 0 -- reckon each moment once, not again wherever it is used
    ) AS s
    CROSS JOIN LATERAL (SELECT floor(4 * shop_world.chance(s.key, 38))::integer AS regular) AS r
    CROSS JOIN LATERAL (
        SELECT
            shop_world.chance(s.key, 30) AS whim,
            r.regular,
            CASE WHEN r.regular < 3 THEN s.favourite ELSE s.second END AS shelf
    ) AS w
    WHERE
        shop_world.chance(s.key, 32) < CASE
            WHEN s.at_sign_up THEN 0.7
            ELSE
                -- most in the middle of December, least in the middle of June
                (0.80 + 0.14 * cos(
                    2 * pi() * (date_part('epoch', s.ordered_at) / 86400 / 365.25 - 0.96)
                ))
                -- who is about to leave orders less, who left hardly ever
                * CASE
                    WHEN s.ordered_at >= s.left_at THEN 0.05
                    WHEN s.ordered_at >= s.left_at - interval '45 days' THEN 0.5
                    ELSE 1
                END
                -- who pauses, for up to two months, hardly at all
                * CASE
                    WHEN shop_world.chance(
                        s.customer_id * 10000
                            + floor(date_part('epoch', s.ordered_at) / 86400 / 60)::bigint, 33
                    ) < 0.10 THEN 0.1
                    ELSE 1
                END
        END
) AS o
JOIN shop.products AS p USING (product_id)
WHERE o.loaded_at > :since AND o.loaded_at <= :until
ORDER BY o.loaded_at, o.customer_id
