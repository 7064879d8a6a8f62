-- Say what a role may do with a relation.
-- Parameters: role, relation (text: quoted, with its schema). Grain: one row.
SELECT has_table_privilege(:role, :relation, 'SELECT') AS reads,
       has_table_privilege(:role, :relation, 'INSERT, UPDATE, DELETE, TRUNCATE') AS writes
