-- Leave forgotten entities out of what a query returns.
-- Fragments: query, digest (of the key of prescore_kept), digests (list of bytea literals). Grain: that of the query.
SELECT prescore_kept.* FROM (
{query}
) AS prescore_kept
WHERE coalesce({digest} = ANY (ARRAY[{digests}]), false) = false
