-- What became of customers at twelve instants of the past, 30 days apart: 1 when nothing was bought in the 30 days after
-- as_of, 0 when something was. The latest as_of is 31 days before the run, so that the last order had a day to be loaded.
-- About 5,000 customers an instant, others at each: enough to learn from, and training stays a matter of seconds.
-- (< 1 and not = 0: for an equality PostgreSQL expects one row in 200 and joins the features in nested loops.)
SELECT
    c.customer_id,
    asked.as_of,
    (NOT EXISTS (
        SELECT FROM shop.orders AS o
        WHERE
            o.customer_id = c.customer_id
            AND o.ordered_at > asked.as_of
            AND o.ordered_at <= asked.as_of + interval '30 days'
            AND o.loaded_at <= run.as_of
    ))::integer AS label
FROM run
CROSS JOIN (SELECT greatest(1, count(*) / 5000) AS share FROM shop.customers) AS sample
CROSS JOIN generate_series(0, 11) AS months
CROSS JOIN LATERAL (SELECT run.as_of - interval '31 days' - months * interval '30 days' AS as_of) AS asked
JOIN shop.customers AS c ON c.created_at <= asked.as_of AND mod(c.customer_id + months, sample.share) < 1
