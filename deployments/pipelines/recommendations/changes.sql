-- Whose features may have changed since an instant: features.sql reads orders and nothing else.
SELECT o.customer_id FROM shop.orders AS o, since WHERE o.loaded_at > since.at
