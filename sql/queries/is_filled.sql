-- Say whether a table has rows: an empty one is never analysed, a cached plan would keep a sequential scan.
-- Fragments: table. Grain: one row.
SELECT EXISTS (SELECT FROM {table}) AS is_filled
