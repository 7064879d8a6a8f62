-- Let a role own an object.
-- Fragments: object (its kind and qualified name), owner (quoted). Grain: no rows.
ALTER {object} OWNER TO {owner}
