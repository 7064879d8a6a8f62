-- What was known of a customer at as_of. Every table is cut at loaded_at: an order placed before as_of that reached us
-- after it was not known, neither to this run nor to the model in training.
SELECT
    b.customer_id,
    b.as_of,
    c.segment,
    c.country,
    c.channel,
    c.birth_year,
    c.created_at,
    coalesce(c.unsubscribed_at > b.as_of, true) AS subscribed,
    coalesce(o.orders, 0) AS orders,
    coalesce(o.orders_30d, 0) AS orders_30d,
    coalesce(o.orders_90d, 0) AS orders_90d,
    coalesce(o.orders_365d, 0) AS orders_365d,
    coalesce(o.gifts_365d, 0) AS gifts_365d,
    o.spent_365d,
    o.first_order_at,
    o.last_order_at,
    coalesce(v.visits_14d, 0) AS visits_14d,
    coalesce(v.visits_30d, 0) AS visits_30d,
    coalesce(v.visits_90d, 0) AS visits_90d,
    v.pages_90d,
    v.last_visit_at
FROM batch AS b
JOIN shop.customers AS c USING (customer_id)
LEFT JOIN (
    SELECT
        b.customer_id,
        b.as_of,
        count(*) AS orders,
        count(*) FILTER (WHERE o.ordered_at >= b.as_of - interval '30 days') AS orders_30d,
        count(*) FILTER (WHERE o.ordered_at >= b.as_of - interval '90 days') AS orders_90d,
        count(*) FILTER (WHERE o.ordered_at >= b.as_of - interval '365 days') AS orders_365d,
        count(*) FILTER (WHERE o.ordered_at >= b.as_of - interval '365 days' AND p.category = 'gifts') AS gifts_365d,
        sum(o.amount) FILTER (WHERE o.ordered_at >= b.as_of - interval '365 days') AS spent_365d,
        min(o.ordered_at) AS first_order_at,
        max(o.ordered_at) AS last_order_at
    FROM batch AS b
    JOIN shop.orders AS o ON o.customer_id = b.customer_id AND o.loaded_at <= b.as_of
    JOIN shop.products AS p USING (product_id)
    GROUP BY b.customer_id, b.as_of
) AS o ON o.customer_id = b.customer_id AND o.as_of = b.as_of
LEFT JOIN (
    SELECT
        b.customer_id,
        b.as_of,
        count(*) FILTER (WHERE v.visited_at >= b.as_of - interval '14 days') AS visits_14d,
        count(*) FILTER (WHERE v.visited_at >= b.as_of - interval '30 days') AS visits_30d,
        count(*) FILTER (WHERE v.visited_at >= b.as_of - interval '90 days') AS visits_90d,
        avg(v.pages) FILTER (WHERE v.visited_at >= b.as_of - interval '90 days') AS pages_90d,
        max(v.visited_at) AS last_visit_at
    FROM batch AS b
    JOIN shop.visits AS v ON v.customer_id = b.customer_id AND v.loaded_at <= b.as_of
    GROUP BY b.customer_id, b.as_of
) AS v ON v.customer_id = b.customer_id AND v.as_of = b.as_of
