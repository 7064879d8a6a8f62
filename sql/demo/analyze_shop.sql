-- Tell the planner what a load has brought.
-- Parameters: none. Result: none.
ANALYZE shop.customers, shop.products, shop.orders, shop.visits
