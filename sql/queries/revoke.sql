-- Take something from a role.
-- Fragments: privilege, object (its kind and qualified name), grantee (quoted). Grain: no rows.
REVOKE {privilege} ON {object} FROM {grantee}
