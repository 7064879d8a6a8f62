-- Select the keys whose features are no longer those that their prediction was made of: the changes query of a pipeline that
-- keeps fingerprints. It also names entities that are not served, and served keys without a row of features.
-- Fragments: found (query of the keys and fingerprints that features have now), fingerprint_name, served_keys, storage
-- (table), key_names. Grain: one row per key.
SELECT {key_names} FROM (
{found}
) AS found
FULL JOIN (SELECT {served_keys}, served.{fingerprint_name} FROM {storage} AS served) AS kept USING ({key_names})
WHERE found.{fingerprint_name} IS DISTINCT FROM kept.{fingerprint_name}
