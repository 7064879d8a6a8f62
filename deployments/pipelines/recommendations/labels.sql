-- What customers bought in the 30 days after six instants of the past, 30 days apart: a row for each product, and none for
-- who bought nothing. (A recommender has as many labels for one customer and instant as came true.) Every label lies after
-- its as_of and before the next one, so that the instants held out to judge the model are after all that it learned from.
-- The latest as_of is 31 days before the run, so that the last order had a day to be loaded. About 25,000 customers an
-- instant, others at each.
SELECT DISTINCT
    o.customer_id,
    asked.as_of,
    o.product_id AS label
FROM run
CROSS JOIN (SELECT greatest(1, count(*) / 25000) AS share FROM shop.customers) AS sample
CROSS JOIN generate_series(0, 5) AS months
CROSS JOIN LATERAL (SELECT run.as_of - interval '31 days' - months * interval '30 days' AS as_of) AS asked
JOIN shop.orders AS o
    ON o.ordered_at > asked.as_of
    AND o.ordered_at <= asked.as_of + interval '30 days'
    AND o.loaded_at <= run.as_of
    AND mod(o.customer_id + months, sample.share) < 1
JOIN shop.customers AS c ON c.customer_id = o.customer_id AND c.created_at <= asked.as_of
