-- Read what a reader is told about one customer now, and of how many customers a prediction may be used.
-- Parameters: customer_id. Result: one row.
SELECT
    prescore.clock() AS clock,
    f.data_as_of,
    f.state,
    f.churn_probability,
    (SELECT count(*) FROM predictions.churn_usable) AS usable
FROM predictions.churn_for(:customer_id) AS f
