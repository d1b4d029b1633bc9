-- Fulfilment service: one database, all customers in the same tables.
--
-- Every request of the API runs in one transaction (see begin_with_context):
--     BEGIN;
--     SET LOCAL app.current_customer_id = '<customer>';
--     ...
--     COMMIT;            -- or ROLLBACK when anything fails
-- Rules of this schema:
--   * the API logs in as shop_app, which owns nothing and belongs to no other role;
--   * row security is enabled AND forced on every table with a "customerId";
--   * every policy states USING and WITH CHECK; triggers and defaults only fill in, they are no guard;
--   * every key and every foreign key contains "customerId", so no constraint ever compares two customers;
--   * no context, or the empty one that SET LOCAL leaves behind after COMMIT, means no rows.

DO $$ BEGIN CREATE ROLE shop_owner NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE shop_app LOGIN NOBYPASSRLS; EXCEPTION WHEN duplicate_object THEN NULL; END $$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO shop_owner;
GRANT USAGE ON SCHEMA public TO shop_app;
ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
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
    "customerId"  text PRIMARY KEY CHECK ("customerId" <> ''),
    name          text NOT NULL,
    plan          text NOT NULL DEFAULT 'starter' REFERENCES plans,
    contact_email text CHECK (contact_email LIKE '%@%'),
    created_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE orders (
    "customerId"  text NOT NULL REFERENCES customers,
    order_id      bigint GENERATED ALWAYS AS IDENTITY,
    order_number  text NOT NULL,
    status        order_status NOT NULL DEFAULT 'draft',
    currency      char(3) NOT NULL DEFAULT 'EUR' REFERENCES currencies,
    total         numeric(12,2) NOT NULL DEFAULT 0 CHECK (total >= 0),
    ship_to       jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(ship_to) = 'object'),
    placed_on     date NOT NULL DEFAULT current_date,
    deliver_by    date,
    PRIMARY KEY ("customerId", order_id),
    UNIQUE ("customerId", order_number),
    CHECK (deliver_by >= placed_on)
);

CREATE TABLE order_lines (
    "customerId"  text NOT NULL,
    line_id       bigint GENERATED ALWAYS AS IDENTITY,
    order_id      bigint NOT NULL,
    article       sku NOT NULL,
    quantity      integer NOT NULL CHECK (quantity BETWEEN 1 AND 9999),
    unit_price    numeric(10,2) NOT NULL CHECK (unit_price >= 0),
    gift_note     text,
    PRIMARY KEY ("customerId", line_id),
    FOREIGN KEY ("customerId", order_id) REFERENCES orders ("customerId", order_id) ON DELETE CASCADE
);
CREATE INDEX order_lines_order_idx ON order_lines ("customerId", order_id);

CREATE TABLE invoices (
    "customerId"  text NOT NULL,
    invoice_id    uuid NOT NULL DEFAULT gen_random_uuid(),
    order_id      bigint NOT NULL,
    amount        numeric(12,2) NOT NULL CHECK (amount > 0),
    vat_rate      numeric(4,2) NOT NULL DEFAULT 19.00 CHECK (vat_rate BETWEEN 0 AND 30),
    issued_on     date NOT NULL DEFAULT current_date,
    paid_at       timestamptz,
    reminders     date[] NOT NULL DEFAULT '{}',
    PRIMARY KEY ("customerId", invoice_id),
    FOREIGN KEY ("customerId", order_id) REFERENCES orders ("customerId", order_id)
);
CREATE INDEX invoices_order_idx ON invoices ("customerId", order_id);

-- Grows by a million rows a month, so one partition per big customer.  Nobody is granted a partition: row security
-- of the parent does not protect a partition that is named directly.  A default fills the key, because a
-- BEFORE INSERT trigger would come after the row has been routed.
CREATE TABLE shipment_events (
    "customerId"  text NOT NULL DEFAULT NULLIF(current_setting('app.current_customer_id', true), ''),
    event_id      bigint GENERATED ALWAYS AS IDENTITY,
    order_id      bigint NOT NULL,
    happened_at   timestamptz NOT NULL DEFAULT now(),
    kind          text NOT NULL CHECK (kind IN ('picked', 'handed_over', 'in_transit', 'delivered', 'lost')),
    details       jsonb,
    PRIMARY KEY ("customerId", event_id),
    FOREIGN KEY ("customerId", order_id) REFERENCES orders ("customerId", order_id) ON DELETE CASCADE
) PARTITION BY LIST ("customerId");
CREATE TABLE shipment_events_acme PARTITION OF shipment_events FOR VALUES IN ('acme');
CREATE TABLE shipment_events_globex PARTITION OF shipment_events FOR VALUES IN ('globex');
CREATE TABLE shipment_events_rest PARTITION OF shipment_events DEFAULT;
CREATE INDEX shipment_events_order_idx ON shipment_events ("customerId", order_id);

CREATE TABLE return_requests (
    "customerId"  text NOT NULL,
    request_id    uuid NOT NULL DEFAULT gen_random_uuid(),
    order_id      bigint NOT NULL,
    reason        text NOT NULL CHECK (length(reason) BETWEEN 3 AND 500),
    refund        numeric(12,2) CHECK (refund >= 0),
    requested_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY ("customerId", request_id),
    FOREIGN KEY ("customerId", order_id) REFERENCES orders ("customerId", order_id)
);
CREATE INDEX return_requests_order_idx ON return_requests ("customerId", order_id);

-- Who is the current customer?  Call this right after BEGIN; an unknown customer raises, and the request rolls back.
CREATE FUNCTION begin_with_context(p_customer_id text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM set_config('app.current_customer_id', p_customer_id, true);
    IF NOT EXISTS (SELECT FROM public.customers WHERE "customerId" = p_customer_id) THEN
        RAISE EXCEPTION 'unknown customer';
    END IF;
END $$;
GRANT EXECUTE ON FUNCTION begin_with_context(text) TO shop_app;

-- A convenience: fills the customer in.  What may be written is decided by WITH CHECK below.
CREATE FUNCTION fill_customer() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW."customerId" := COALESCE(NEW."customerId", NULLIF(current_setting('app.current_customer_id', true), ''));
    RETURN NEW;
END $$;
CREATE TRIGGER orders_fill_customer BEFORE INSERT ON orders
    FOR EACH ROW EXECUTE FUNCTION fill_customer();
CREATE TRIGGER order_lines_fill_customer BEFORE INSERT ON order_lines
    FOR EACH ROW EXECUTE FUNCTION fill_customer();

ALTER TABLE customers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE order_lines ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE invoices ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE shipment_events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE shipment_events_acme ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE shipment_events_globex ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE shipment_events_rest ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE return_requests ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY customer_isolation ON customers
    USING ("customerId" = NULLIF(current_setting('app.current_customer_id', true), ''))
    WITH CHECK ("customerId" = NULLIF(current_setting('app.current_customer_id', true), ''));
CREATE POLICY customer_isolation ON orders
    USING ("customerId" = NULLIF(current_setting('app.current_customer_id', true), ''))
    WITH CHECK ("customerId" = NULLIF(current_setting('app.current_customer_id', true), ''));
CREATE POLICY customer_isolation ON order_lines
    USING ("customerId" = NULLIF(current_setting('app.current_customer_id', true), ''))
    WITH CHECK ("customerId" = NULLIF(current_setting('app.current_customer_id', true), ''));
CREATE POLICY customer_isolation ON invoices
    USING ("customerId" = NULLIF(current_setting('app.current_customer_id', true), ''))
    WITH CHECK ("customerId" = NULLIF(current_setting('app.current_customer_id', true), ''));
CREATE POLICY customer_isolation ON shipment_events
    USING ("customerId" = NULLIF(current_setting('app.current_customer_id', true), ''))
    WITH CHECK ("customerId" = NULLIF(current_setting('app.current_customer_id', true), ''));
CREATE POLICY customer_isolation ON return_requests
    USING ("customerId" = NULLIF(current_setting('app.current_customer_id', true), ''))
    WITH CHECK ("customerId" = NULLIF(current_setting('app.current_customer_id', true), ''));

-- Dashboard; reads with the rights of whoever asks
CREATE VIEW revenue_by_customer WITH (security_invoker = true) AS
    SELECT c."customerId", c.name, o.currency, count(*) AS invoices, sum(i.amount) AS revenue
    FROM invoices i JOIN orders o USING ("customerId", order_id) JOIN customers c USING ("customerId")
    GROUP BY c."customerId", c.name, o.currency;

GRANT SELECT ON plans, currencies, customers, revenue_by_customer TO shop_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON orders, order_lines, invoices, shipment_events, return_requests TO shop_app;

RESET ROLE;
