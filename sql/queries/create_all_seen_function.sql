-- Create the list of what readers saw at an instant: one row per entity that was served, with the columns of the view.
-- Fragments: function, history_view (relations), columns (names and types), keys, at, state, cache_for, outputs_shown. Grain: no rows.
CREATE OR REPLACE FUNCTION {function}(seen_at timestamptz) RETURNS TABLE ({columns})
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT {keys},
           {state},
           {at} - p.data_as_of, p.data_as_of, p.as_of, p.aging_at, p.stale_at, p.expires_at,
           {cache_for},
           p.reasons, p.model_version, p.scored_in,
           {outputs_shown}
    FROM {history_view} AS p
    WHERE p.seen_from <= {at} AND (p.seen_until > {at} OR p.seen_until IS NULL);
END
