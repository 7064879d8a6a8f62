-- Find the name that head has a renamed pipeline under, in the snapshot that asks: a part of its views.
-- Fragments: now, then (text literals: its name, and the one before). Grain: one value.
(SELECT CASE WHEN EXISTS (SELECT FROM prescore.head WHERE pipeline = {now}) THEN {now} ELSE {then} END)
