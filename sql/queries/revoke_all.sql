-- Take every right on an object from a role.
-- Fragments: object (its kind and qualified name), grantee (quoted, or PUBLIC). Grain: no rows.
REVOKE ALL ON {object} FROM {grantee}
