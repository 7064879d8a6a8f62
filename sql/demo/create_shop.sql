-- Create the example shop, empty: who buys (customers), what (products), when (orders), and who only looks (visits).
-- Every table has the instant at which its newest row became known (updated_at, loaded_at): an event may be older than
-- our knowledge of it, and only what was known by as_of may enter a prediction.
-- Parameters: none. Result: none. One statement: schema, tables and indexes appear together.
CREATE SCHEMA shop
    CREATE TABLE customers (
        customer_id bigint PRIMARY KEY,
        name text NOT NULL,
        segment text NOT NULL,              -- private, family or business; never changes
        country text,                       -- country of the first delivery; NULL: not known
        birth_year integer,                 -- NULL: not told
        channel text,                       -- how the customer found the shop; NULL: not known
        created_at timestamptz NOT NULL,
        unsubscribed_at timestamptz,        -- no more letters since then; NULL: may be written to
        updated_at timestamptz NOT NULL     -- when this row was last loaded
    )
    CREATE TABLE products (
        product_id bigint PRIMARY KEY,
        name text NOT NULL,
        category text NOT NULL,
        price numeric(10, 2) NOT NULL,      -- euro
        updated_at timestamptz NOT NULL
    )
    CREATE TABLE orders (
        order_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        customer_id bigint NOT NULL,
        product_id bigint NOT NULL,
        quantity integer NOT NULL,
        amount numeric(10, 2) NOT NULL,     -- euro, quantity times the price after discount
        ordered_at timestamptz NOT NULL,
        loaded_at timestamptz NOT NULL      -- minutes after ordered_at
    )
    CREATE TABLE visits (
        visit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        customer_id bigint NOT NULL,
        visited_at timestamptz NOT NULL,
        pages integer,                      -- pages seen; NULL: the browser did not tell
        loaded_at timestamptz NOT NULL
    )
    CREATE INDEX customers_updated_at ON customers (updated_at)
    CREATE INDEX products_updated_at ON products (updated_at)
    CREATE INDEX orders_customer_id ON orders (customer_id)
    CREATE INDEX orders_loaded_at ON orders (loaded_at)
    CREATE INDEX visits_customer_id ON visits (customer_id)
    CREATE INDEX visits_loaded_at ON visits (loaded_at)
