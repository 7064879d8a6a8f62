-- Let a role use what the owner makes in the schema of predictions later: pipelines to come.
-- Fragments: owner, grantee (quoted), privilege, kind (TABLES, which are views too, or FUNCTIONS). Grain: no rows.
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA predictions GRANT {privilege} ON {kind} TO {grantee}
