-- Let nobody erase an entity, which begins with head, between a look at who is to be left out and the end of the transaction.
-- Fragments: pipeline (literal). Grain: one row, or none before the first publication.
SELECT generation_id FROM prescore.head WHERE pipeline = {pipeline} FOR SHARE
