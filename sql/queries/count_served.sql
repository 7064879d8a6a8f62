-- Count what is served, and the rows of it that are due.
-- Fragments: storage (table), hidden (condition on served: a row without a prediction to show), due_before (instant literal).
-- Grain: one row.
SELECT count(*) AS served, count(*) FILTER (WHERE {hidden} OR served.as_of <= {due_before}) AS due
FROM {storage} AS served
