-- Create habits: how each customer behaves, which the shop does not know and a model has to guess from the traces.
-- Parameters: none. Result: none.
-- Grain of the view: one row per customer. gap_days lie between two orders of an active customer; left_at is when the
-- customer turns to another shop (infinity: never); unsubscribes_at is when the letters become too much (infinity: never).
-- favourite and second are the shelves that a customer likes (0 to 11, as in stock_products.sql); they may be the same.
CREATE VIEW shop_world.habits AS
SELECT
    drawn.customer_id,
    drawn.created_at,
    drawn.gap_days,
    drawn.left_at,
    floor(12 * power(shop_world.chance(drawn.customer_id, 6), 1.3))::integer AS favourite,
    floor(12 * power(shop_world.chance(drawn.customer_id, 7), 1.3))::integer AS second,
    CASE
        WHEN drawn.left_at < 'infinity' AND drawn.tires < 0.40
            THEN greatest(drawn.created_at, drawn.left_at + (drawn.moment - 0.6) * interval '40 days')
        WHEN drawn.tires < 0.06
            THEN drawn.created_at + drawn.moment * interval '700 days'
        ELSE 'infinity'
    END AS unsubscribes_at
FROM (
    SELECT
        c.customer_id,
        c.created_at,
        -- 9 days to four months, shorter for a business
        9 * power(14, shop_world.chance(c.customer_id, 1))
            * CASE c.segment WHEN 'business' THEN 0.6 ELSE 1 END AS gap_days,
        CASE
            WHEN shop_world.chance(c.customer_id, 2) < CASE c.channel WHEN 'voucher' THEN 0.90 ELSE 0.68 END
                THEN c.created_at - ln(1 - shop_world.chance(c.customer_id, 3))
                    * CASE c.channel WHEN 'voucher' THEN 120 WHEN 'friends' THEN 420 ELSE 260 END * interval '1 day'
            ELSE 'infinity'
        END AS left_at,
        shop_world.chance(c.customer_id, 4) AS tires,
        shop_world.chance(c.customer_id, 5) AS moment
    FROM shop.customers AS c
    OFFSET 0 -- draw once, not again wherever a number is used
) AS drawn
