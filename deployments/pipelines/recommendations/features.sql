-- What a customer bought, as known at as_of: the products of the last 50 orders, newest first, in one text ("17 230 17").
-- Features are single values, so a list travels as text; model.py takes it apart without a loop over rows. NULL: never
-- bought anything.
--
-- There is no window of days here, on purpose: the text changes when an order arrives and at no other time. That is what
-- time_invariant = true in pipeline.toml promises.
SELECT
    b.customer_id,
    b.as_of,
    o.bought
FROM batch AS b
LEFT JOIN (
    SELECT
        b.customer_id,
        b.as_of,
        array_to_string((array_agg(o.product_id ORDER BY o.ordered_at DESC, o.order_id DESC))[1 : 50], ' ') AS bought
    FROM batch AS b
    JOIN shop.orders AS o ON o.customer_id = b.customer_id AND o.loaded_at <= b.as_of
    GROUP BY b.customer_id, b.as_of
) AS o ON o.customer_id = b.customer_id AND o.as_of = b.as_of
