-- Let a role have what another one has.
-- Fragments: role, grantee (quoted). Grain: no rows.
GRANT {role} TO {grantee}
