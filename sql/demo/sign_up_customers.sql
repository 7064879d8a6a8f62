-- Sign up customers, numbered in the order of their coming.
-- Parameters: first_id (bigint, number of the first), customers (how many), since and until (timestamptz, when they come),
-- growth (1: evenly; above 1: more and more towards the end).
-- Result: none; as many rows as customers.
INSERT INTO shop.customers (customer_id, name, segment, country, birth_year, channel, created_at, updated_at)
SELECT
    n.customer_id,
    (ARRAY[
        'Ada', 'Alan', 'Amara', 'Anna', 'Ben', 'Chiara', 'Chloe', 'Daan', 'Elif', 'Emil', 'Eva', 'Femke', 'Finn',
        'Greta', 'Hugo', 'Ines', 'Jonas', 'Kofi', 'Lars', 'Lea', 'Luca', 'Maja', 'Marta', 'Mehmet', 'Mila', 'Nils',
        'Noor', 'Olga', 'Omar', 'Paul', 'Pia', 'Rosa', 'Sofia', 'Tom', 'Uma', 'Vera', 'Willem', 'Yara', 'Yusuf', 'Zoe'
    ])[1 + floor(40 * shop_world.chance(n.customer_id, 11))::integer]
    || ' ' ||
    (ARRAY[
        'Adler', 'Bakker', 'Berg', 'Bianchi', 'Costa', 'Dubois', 'Ferrari', 'Fischer', 'Garcia', 'Haas', 'Hansen',
        'Ivanova', 'Jansen', 'Kaya', 'Keller', 'Kowalski', 'Lang', 'Laurent', 'Lopez', 'Marino', 'Mensah', 'Meyer',
        'Moreau', 'Nowak', 'Okafor', 'Peeters', 'Petit', 'Rossi', 'Sanchez', 'Schmidt', 'Silva', 'Smit', 'Vogel',
        'Weber', 'Wolf', 'Yilmaz', 'Zeman', 'Zimmer', 'van Dijk', 'de Vries'
    ])[1 + floor(40 * shop_world.chance(n.customer_id, 12))::integer],
    CASE
        WHEN shop_world.chance(n.customer_id, 13) < 0.12 THEN 'business'
        WHEN shop_world.chance(n.customer_id, 13) < 0.40 THEN 'family'
        ELSE 'private'
    END,
    CASE
        WHEN shop_world.chance(n.customer_id, 14) < 0.31 THEN 'DE'
        WHEN shop_world.chance(n.customer_id, 14) < 0.50 THEN 'FR'
        WHEN shop_world.chance(n.customer_id, 14) < 0.64 THEN 'NL'
        WHEN shop_world.chance(n.customer_id, 14) < 0.76 THEN 'IT'
        WHEN shop_world.chance(n.customer_id, 14) < 0.86 THEN 'ES'
        WHEN shop_world.chance(n.customer_id, 14) < 0.96 THEN 'PL'
    END,
    CASE
        WHEN shop_world.chance(n.customer_id, 15) < 0.78
            THEN 2006 - floor(62 * power(shop_world.chance(n.customer_id, 16), 1.2))::integer
    END,
    CASE
        WHEN shop_world.chance(n.customer_id, 17) < 0.45 THEN 'search'
        WHEN shop_world.chance(n.customer_id, 17) < 0.65 THEN 'friends'
        WHEN shop_world.chance(n.customer_id, 17) < 0.85 THEN 'voucher'
        WHEN shop_world.chance(n.customer_id, 17) < 0.93 THEN 'market'
    END,
    n.created_at,
    -- known a few minutes later, never after the end of what is being loaded
    least(n.created_at + (1 + 4 * shop_world.chance(n.customer_id, 18)) * interval '1 minute', :until)
FROM (
    SELECT
        :first_id + k AS customer_id,
        :until - (:until - :since) * power(
            (:customers - 1 - k + shop_world.chance(:first_id + k, 19)) / :customers, :growth
        ) AS created_at
    FROM generate_series(0, :customers - 1) AS k
) AS n
ORDER BY n.customer_id
