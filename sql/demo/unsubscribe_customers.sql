-- Let customers unsubscribe from the shop's letters, and load what becomes known in (since, until].
-- Parameters: since and until (timestamptz; since may be -infinity).
-- Result: none; one changed row per customer who unsubscribed. Loading (a, b] and then (b, c] gives the rows of (a, c].
UPDATE shop.customers AS c
SET unsubscribed_at = h.unsubscribes_at, updated_at = h.unsubscribes_at + interval '2 minutes'
FROM shop_world.habits AS h
WHERE
    h.customer_id = c.customer_id
    AND h.unsubscribes_at + interval '2 minutes' > :since
    AND h.unsubscribes_at + interval '2 minutes' <= :until
