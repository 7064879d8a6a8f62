-- Let a role read a relation.
-- Fragments: relation, role (quoted, or PUBLIC). Grain: no rows.
GRANT SELECT ON {relation} TO {role}
