-- Choose customers from all over the table, to look them up.
-- Parameters: customers (how many). Result: one row per customer.
SELECT customer_id FROM predictions.churn ORDER BY shop_world.chance(customer_id, 61) LIMIT :customers
