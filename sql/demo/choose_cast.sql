-- Choose the customers to watch over the day that passes. Run where the day has passed, in a transaction that is then
-- taken back: so the story follows somebody to whom something happens.
-- Parameters: since (timestamptz, end of the first day).
-- Result: one row. buyer: orders that day, a regular who had gone quiet if there is one; quiet: nothing is heard of, the
-- likeliest to leave; leaver: asks to be forgotten; newcomer: signs up. NULL where there is none.
SELECT
    (
        SELECT p.customer_id
        FROM predictions.churn_usable AS p
        JOIN shop.customers AS c USING (customer_id)
        CROSS JOIN LATERAL (
            SELECT count(*) AS all_time FROM shop.orders AS o WHERE o.customer_id = p.customer_id
        ) AS orders
        WHERE p.customer_id IN (SELECT o.customer_id FROM shop.orders AS o WHERE o.loaded_at > :since)
        ORDER BY p.churn_probability >= 0.6 DESC, orders.all_time DESC, p.customer_id
        LIMIT 1
    ) AS buyer,
    (
        SELECT p.customer_id
        FROM predictions.churn_usable AS p
        JOIN shop.customers AS c USING (customer_id)
        WHERE
            c.updated_at < :since - interval '1 hour'
            AND NOT EXISTS (
                SELECT FROM shop.orders AS o
                WHERE o.customer_id = p.customer_id AND o.loaded_at > :since - interval '1 hour'
            )
            AND NOT EXISTS (
                SELECT FROM shop.visits AS v
                WHERE v.customer_id = p.customer_id AND v.loaded_at > :since - interval '1 hour'
            )
        ORDER BY p.churn_probability DESC
        LIMIT 1
    ) AS quiet,
    (
        SELECT min(p.customer_id)
        FROM predictions.churn_usable AS p
        WHERE NOT EXISTS (SELECT FROM shop.customers AS c WHERE c.customer_id = p.customer_id)
    ) AS leaver,
    (SELECT min(c.customer_id) FROM shop.customers AS c WHERE c.created_at > :since) AS newcomer
