-- Whose features may have changed since an instant: every table that features.sql reads says for itself.
SELECT c.customer_id FROM shop.customers AS c, since WHERE c.updated_at > since.at
UNION
SELECT o.customer_id FROM shop.orders AS o, since WHERE o.loaded_at > since.at
UNION
SELECT v.customer_id FROM shop.visits AS v, since WHERE v.loaded_at > since.at
