-- Stock the shop: products in twelve categories by turns, prices from 2 to 240 euro. Product 1 + c + 12 * n is the one at
-- place n (from 0) on the shelf of category c (from 0); place_orders.sql finds it by that.
-- Parameters: products (how many), since (timestamptz, when they were put up).
-- Result: none; as many rows as products.
INSERT INTO shop.products (product_id, name, category, price, updated_at)
SELECT
    p.product_id,
    p.category || ' no. ' || p.product_id,
    p.category,
    round((2 * power(120, p.dear))::numeric, 2),
    :since
FROM (
    SELECT
        k AS product_id,
        (ARRAY[
            'books', 'coffee', 'garden', 'gifts', 'kitchen', 'lamps', 'office', 'paper', 'shoes', 'tea', 'toys', 'wool'
        ])[1 + (k - 1) % 12] AS category,
        shop_world.chance(k, 22) AS dear
    FROM generate_series(1::bigint, :products) AS k
) AS p
ORDER BY p.product_id
