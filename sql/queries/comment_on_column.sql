-- Say what a column holds.
-- Fragments: column (qualified), comment (text literal). Grain: no rows.
COMMENT ON COLUMN {column} IS {comment}
