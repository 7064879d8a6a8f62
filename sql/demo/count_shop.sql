-- Count what the shop has.
-- Parameters: none. Result: one row: customers, products, orders, visits.
SELECT
    (SELECT count(*) FROM shop.customers) AS customers,
    (SELECT count(*) FROM shop.products) AS products,
    (SELECT count(*) FROM shop.orders) AS orders,
    (SELECT count(*) FROM shop.visits) AS visits
