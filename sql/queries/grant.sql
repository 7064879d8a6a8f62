-- Let a role do something with an object.
-- Fragments: privilege (with its column), object (its kind and qualified name), grantee (quoted, or PUBLIC), option. Grain: no rows.
GRANT {privilege} ON {object} TO {grantee}{option}
