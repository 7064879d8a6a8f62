-- Say what a function returns.
-- Fragments: signature, comment (text literal). Grain: no rows.
COMMENT ON FUNCTION {signature} IS {comment}
