-- Close accounts for good: the customers ask to be forgotten, so their orders and visits go as well.
-- Parameters: accounts (how many, at most), draw (integer, which draw of lots chooses them).
-- Result: the numbers of the customers who are gone.
WITH chosen AS (
    SELECT customer_id FROM shop.customers ORDER BY shop_world.chance(customer_id, :draw) LIMIT :accounts
),
no_orders AS (
    DELETE FROM shop.orders USING chosen WHERE orders.customer_id = chosen.customer_id
),
no_visits AS (
    DELETE FROM shop.visits USING chosen WHERE visits.customer_id = chosen.customer_id
)
DELETE FROM shop.customers USING chosen
WHERE customers.customer_id = chosen.customer_id
RETURNING customers.customer_id
