-- Fulfilment service: one database, all customers in the same tables.
--
-- Every request of the API runs in one transaction (see begin_with_context):
--     BEGIN;
--     SET LOCAL app.current_customer_id = '<customer>';
--     ...
--     COMMIT;            -- or ROLLBACK when anything fails
-- Row Level Security does the rest, no query needs a WHERE customerId = ...

CREATE ROLE shop_owner NOLOGIN;
CREATE ROLE shop_app LOGIN;

GRANT USAGE, CREATE ON SCHEMA public TO shop_owner;
GRANT USAGE ON SCHEMA public TO shop_app;
SET ROLE shop_owner;

CREATE TYPE order_status AS ENUM ('draft', 'placed', 'packed', 'shipped', 'cancelled');
CREATE DOMAIN sku AS text CHECK (VALUE ~ '^[A-Z0-9-]{3,20}$');

-- Reference data, the same for everybody
CREATE TABLE plans (
    code          text PRIMARY KEY,
    monthly_price numeric(8,2) NOT NULL CHECK (monthly_price >= 0),
    order_limit   integer
);
INSERT INTO plans VALUES ('starter', 29.00, 100), ('growth', 149.00, 5000), ('enterprise', 990.00, NULL);

CREATE TABLE currencies (
    code   char(3) PRIMARY KEY,
    digits smallint NOT NULL DEFAULT 2 CHECK (digits BETWEEN 0 AND 4)
);
INSERT INTO currencies VALUES ('EUR', 2), ('USD', 2), ('GBP', 2), ('JPY', 0);

CREATE TABLE customers (
    customerId    text PRIMARY KEY CHECK (customerId <> ''),
    name          text NOT NULL,
    plan          text NOT NULL DEFAULT 'starter' REFERENCES plans,
    contact_email text CHECK (contact_email LIKE '%@%'),
    created_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE orders (
    order_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customerId    text NOT NULL REFERENCES customers,
    order_number  text NOT NULL UNIQUE,
    status        order_status NOT NULL DEFAULT 'draft',
    currency      char(3) NOT NULL DEFAULT 'EUR' REFERENCES currencies,
    total         numeric(12,2) NOT NULL DEFAULT 0 CHECK (total >= 0),
    ship_to       jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(ship_to) = 'object'),
    placed_on     date NOT NULL DEFAULT current_date,
    deliver_by    date,
    CHECK (deliver_by >= placed_on)
);
CREATE INDEX orders_customer_idx ON orders (customerId);

CREATE TABLE order_lines (
    line_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customerId    text NOT NULL REFERENCES customers,
    order_id      bigint NOT NULL REFERENCES orders,
    article       sku NOT NULL,
    quantity      integer NOT NULL CHECK (quantity BETWEEN 1 AND 9999),
    unit_price    numeric(10,2) NOT NULL CHECK (unit_price >= 0),
    gift_note     text
);
CREATE INDEX order_lines_customer_idx ON order_lines (customerId);

CREATE TABLE invoices (
    invoice_id    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    -- an invoice can only be written for the customer of the current request
    customerId    text NOT NULL REFERENCES customers
                  CHECK (customerId = current_setting('app.current_customer_id')),
    order_id      bigint NOT NULL REFERENCES orders,
    amount        numeric(12,2) NOT NULL CHECK (amount > 0),
    vat_rate      numeric(4,2) NOT NULL DEFAULT 19.00 CHECK (vat_rate BETWEEN 0 AND 30),
    issued_on     date NOT NULL DEFAULT current_date,
    paid_at       timestamptz,
    reminders     date[] NOT NULL DEFAULT '{}'
);
CREATE INDEX invoices_customer_idx ON invoices (customerId);

-- Grows by a million rows a month, so one partition per big customer
CREATE TABLE shipment_events (
    customerId    text NOT NULL,
    event_id      bigint GENERATED ALWAYS AS IDENTITY,
    order_id      bigint NOT NULL,
    happened_at   timestamptz NOT NULL DEFAULT now(),
    kind          text NOT NULL CHECK (kind IN ('picked', 'handed_over', 'in_transit', 'delivered', 'lost')),
    details       jsonb,
    PRIMARY KEY (customerId, event_id)
) PARTITION BY LIST (customerId);
CREATE TABLE shipment_events_acme PARTITION OF shipment_events FOR VALUES IN ('acme');
CREATE TABLE shipment_events_globex PARTITION OF shipment_events FOR VALUES IN ('globex');
CREATE TABLE shipment_events_rest PARTITION OF shipment_events DEFAULT;

-- Added by the returns team; the service creates its own table at deployment
CREATE TABLE return_requests (
    request_id    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    customerId    text NOT NULL REFERENCES customers,
    order_id      bigint NOT NULL REFERENCES orders,
    reason        text NOT NULL CHECK (length(reason) BETWEEN 3 AND 500),
    refund        numeric(12,2) CHECK (refund >= 0),
    requested_at  timestamptz NOT NULL DEFAULT now()
);

-- Who is the current customer?  Call this right after BEGIN; an unknown customer raises, and the request rolls back.
CREATE FUNCTION begin_with_context(p_customer_id text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.current_customer_id', p_customer_id, true);
    IF NOT EXISTS (SELECT FROM customers WHERE customerId = p_customer_id) THEN
        RAISE EXCEPTION 'unknown customer';
    END IF;
END $$;

-- Inserts are guarded by triggers: RLS only filters what is there already
CREATE FUNCTION check_customer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.customerId IS DISTINCT FROM current_setting('app.current_customer_id') THEN
        RAISE EXCEPTION 'customerId does not match the current customer';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER orders_check_customer BEFORE INSERT ON orders
    FOR EACH ROW EXECUTE FUNCTION check_customer();

CREATE FUNCTION fill_customer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.customerId IS NULL THEN
        NEW.customerId := current_setting('app.current_customer_id');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER order_lines_fill_customer BEFORE INSERT ON order_lines
    FOR EACH ROW EXECUTE FUNCTION fill_customer();

ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE order_lines ENABLE ROW LEVEL SECURITY;
ALTER TABLE invoices ENABLE ROW LEVEL SECURITY;
ALTER TABLE shipment_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE return_requests ENABLE ROW LEVEL SECURITY;

CREATE POLICY customer_isolation ON customers
    USING (customerId = current_setting('app.current_customer_id'));
CREATE POLICY customer_isolation ON shipment_events
    USING (customerId = current_setting('app.current_customer_id'));
CREATE POLICY customer_isolation ON return_requests
    USING (customerId = current_setting('app.current_customer_id'));

-- the trigger has compared the customer of a new order
CREATE POLICY customer_isolation ON orders
    USING (customerId = current_setting('app.current_customer_id'))
    WITH CHECK (true);

-- the trigger has filled the customer of a new line
CREATE POLICY lines_select ON order_lines FOR SELECT
    USING (customerId = current_setting('app.current_customer_id'));
CREATE POLICY lines_insert ON order_lines FOR INSERT WITH CHECK (true);
CREATE POLICY lines_update ON order_lines FOR UPDATE
    USING (customerId = current_setting('app.current_customer_id'));
CREATE POLICY lines_delete ON order_lines FOR DELETE
    USING (customerId = current_setting('app.current_customer_id'));

-- the CHECK has compared the customer of a new invoice
CREATE POLICY invoices_own ON invoices
    USING (customerId = current_setting('app.current_customer_id'));
CREATE POLICY invoices_insert ON invoices FOR INSERT WITH CHECK (true);

-- Dashboard
CREATE VIEW revenue_by_customer AS
    SELECT c.customerId, c.name, o.currency, count(*) AS invoices, sum(i.amount) AS revenue
    FROM invoices i JOIN orders o USING (order_id) JOIN customers c ON c.customerId = i.customerId
    GROUP BY c.customerId, c.name, o.currency;

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO shop_app;
REVOKE INSERT, UPDATE, DELETE ON plans, currencies FROM shop_app;

RESET ROLE;
ALTER TABLE return_requests OWNER TO shop_app;
