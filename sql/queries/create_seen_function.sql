-- Create the lookup of what readers saw of one entity at an instant: always exactly one row, with the columns of the view. State
-- not_kept says that the history does not tell.
-- Fragments: function, history_view (relations), columns (names and types), arguments, key_arguments, key_matches, at, state, cache_for, outputs_shown,
-- pipeline (text literal). Grain: no rows.
CREATE OR REPLACE FUNCTION {function}({arguments}, seen_at timestamptz) RETURNS TABLE ({columns})
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT {key_arguments},
           CASE WHEN p.seen_from IS NULL THEN split_part((prescore.why_unseen({pipeline}, {at}))[1], ':', 1) ELSE {state} END,
           {at} - p.data_as_of, p.data_as_of, p.as_of, p.aging_at, p.stale_at, p.expires_at,
           {cache_for},
           CASE WHEN p.seen_from IS NULL THEN prescore.why_unseen({pipeline}, {at}) ELSE p.reasons END,
           p.model_version, p.scored_in,
           {outputs_shown}
    FROM (SELECT 1) AS always
    LEFT JOIN (
        SELECT * FROM {history_view} AS p
        WHERE {key_matches} AND p.seen_from <= {at} AND (p.seen_until > {at} OR p.seen_until IS NULL)
        ORDER BY p.seen_from DESC LIMIT 1
    ) AS p ON true;
END
