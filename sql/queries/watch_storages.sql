-- Have it noted when anybody but prescore writes into the rows of a pipeline; readers are not blocked.
-- Fragments: rows, storage_one, storage_two, storage_three (tables). Grain: no rows.
CREATE OR REPLACE TRIGGER prescore_foreign_write AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {rows}
    FOR EACH STATEMENT EXECUTE FUNCTION prescore.note_foreign_write();
CREATE OR REPLACE TRIGGER prescore_foreign_write AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {storage_one}
    FOR EACH STATEMENT EXECUTE FUNCTION prescore.note_foreign_write();
CREATE OR REPLACE TRIGGER prescore_foreign_write AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {storage_two}
    FOR EACH STATEMENT EXECUTE FUNCTION prescore.note_foreign_write();
CREATE OR REPLACE TRIGGER prescore_foreign_write AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {storage_three}
    FOR EACH STATEMENT EXECUTE FUNCTION prescore.note_foreign_write()
