-- How a customer behaves, as known at as_of: how lately, how often, for how much. For who never ordered, the days count
-- from the sign-up, so that no value is NULL: a distance to nothing cannot be measured.
SELECT
    b.customer_id,
    b.as_of,
    extract(epoch FROM b.as_of - coalesce(o.last_order_at, c.created_at))::double precision / 86400 AS days_since_order,
    coalesce(o.orders_365d, 0) AS orders_365d,
    coalesce(o.spent_365d, 0) AS spent_365d,
    coalesce(v.visits_90d, 0) AS visits_90d
FROM batch AS b
JOIN shop.customers AS c USING (customer_id)
LEFT JOIN (
    SELECT
        b.customer_id,
        b.as_of,
        max(o.ordered_at) AS last_order_at,
        count(*) FILTER (WHERE o.ordered_at >= b.as_of - interval '365 days') AS orders_365d,
        sum(o.amount) FILTER (WHERE o.ordered_at >= b.as_of - interval '365 days') AS spent_365d
    FROM batch AS b
    JOIN shop.orders AS o ON o.customer_id = b.customer_id AND o.loaded_at <= b.as_of
    GROUP BY b.customer_id, b.as_of
) AS o ON o.customer_id = b.customer_id AND o.as_of = b.as_of
LEFT JOIN (
    SELECT
        b.customer_id,
        b.as_of,
        count(*) AS visits_90d
    FROM batch AS b
    JOIN shop.visits AS v
        ON v.customer_id = b.customer_id
        AND v.loaded_at <= b.as_of
        AND v.visited_at >= b.as_of - interval '90 days'
    GROUP BY b.customer_id, b.as_of
) AS v ON v.customer_id = b.customer_id AND v.as_of = b.as_of
