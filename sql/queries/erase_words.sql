-- Take a word out of the sentences of a column.
-- Fragments: table, column, type. Parameters: word (text). Grain: one row per sentence that held it.
UPDATE {table} SET {column} = CAST(replace(CAST({column} AS text), :word, '(forgotten)') AS {type})
WHERE position(:word IN CAST({column} AS text)) > 0
