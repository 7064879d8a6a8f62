-- Count what is served and the rows of it that are due, and find the oldest of the others.
-- Fragments: storage (table), hidden (condition on served: a row without a prediction to show), due_before (instant literal).
-- Grain: one row.
SELECT count(*) AS served, count(*) FILTER (WHERE {hidden} OR served.as_of <= {due_before}) AS due,
       min(served.as_of) FILTER (WHERE NOT ({hidden} OR served.as_of <= {due_before})) AS oldest_as_of
FROM {storage} AS served
