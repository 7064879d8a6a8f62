-- Empty a storage but for some ranges of the keys of a generation.
-- Fragments: storage (table), kept (condition on its rows), generation_id (integer literal). Grain: no rows.
DELETE FROM {storage} WHERE (scored_in = {generation_id} AND ({kept})) IS NOT TRUE
