-- Say what a view holds.
-- Fragments: view, comment (text literal). Grain: no rows.
COMMENT ON VIEW {view} IS {comment}
