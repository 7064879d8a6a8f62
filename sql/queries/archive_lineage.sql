-- Move the last rows of a lineage to the history: those that the next lineage did not begin with, and who was not there.
-- An as_of of NULL says that the entity was not served.
-- Fragments: history, storage, next_storage (tables), columns_coalesced (keys of r or else n, outputs of r), targets (names of
-- these), keys_n, outputs_n, columns_h (of the history), key_matches (r and n), outputs_r. Parameters: base, as_of (of the
-- lineage), next (base of the next lineage). Grain: one row per kept row.
INSERT INTO {history} ({targets}, prescore_base, as_of, scored_in, prescore_replaced_in, rejected)
SELECT {columns_coalesced}, :base, r.as_of, coalesce(r.scored_in, :base), NULL, r.rejected
FROM {storage} AS r
FULL JOIN (
    SELECT {columns_s}, s.rejected, true AS there FROM {next_storage} AS s WHERE s.scored_in <= :next
    UNION ALL
    SELECT {columns_h}, h.rejected, true FROM {history} AS h WHERE h.prescore_base = :next AND h.scored_in <= :next
) AS n ON {key_matches}
WHERE n.there IS NULL
   OR r.as_of IS DISTINCT FROM :as_of
   OR r.scored_in IS DISTINCT FROM :base
   OR (r.rejected, {outputs_r}) IS DISTINCT FROM (n.rejected, {outputs_n})
