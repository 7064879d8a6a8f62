-- Remember the name that a pipeline had.
-- Parameters: pipeline, former (text), aliased (boolean), os_user (text or NULL). Grain: one row.
INSERT INTO prescore.former_names (pipeline, former, use, os_user, renamed_xid)
VALUES (:pipeline, :former, CASE WHEN :aliased THEN 'alias' ELSE 'refused' END, :os_user, pg_current_xact_id())
ON CONFLICT (pipeline, former) DO UPDATE
SET use = excluded.use, renamed_at = excluded.renamed_at, renamed_by = excluded.renamed_by, os_user = excluded.os_user,
    renamed_xid = excluded.renamed_xid
