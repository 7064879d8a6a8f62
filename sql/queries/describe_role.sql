-- Name the role that a person signs with.
-- Parameters: none. Grain: one row.
SELECT CAST(session_user AS text) AS role
