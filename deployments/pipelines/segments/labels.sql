-- Whom the model learns from: about 5,000 customers at each of five instants, a week apart. Without a column label the
-- model is unsupervised. Nothing has to ripen, so the newest instant is the run's own; it is held out, to see whether
-- customers it has not seen lie as close to the centres.
SELECT
    c.customer_id,
    asked.as_of
FROM run
CROSS JOIN (SELECT greatest(1, count(*) / 5000) AS share FROM shop.customers) AS sample
CROSS JOIN generate_series(0, 4) AS weeks
CROSS JOIN LATERAL (SELECT run.as_of - weeks * interval '7 days' AS as_of) AS asked
JOIN shop.customers AS c ON c.created_at <= asked.as_of AND mod(c.customer_id + weeks, sample.share) < 1
