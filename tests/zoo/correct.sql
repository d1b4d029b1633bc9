-- A schema as it should be, with much of what makes tools cry: composite keys, enums, domains, partitions, invoker
-- views, guard triggers, shared rows, a membership table, history, a queue.  Nothing of it deserves more than info.
CREATE ROLE shop_owner NOLOGIN;
CREATE ROLE shop_app LOGIN NOINHERIT;
CREATE ROLE shop_report LOGIN;
CREATE SCHEMA shop AUTHORIZATION shop_owner;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
SET ROLE shop_owner;

CREATE TYPE shop.order_state AS ENUM ('draft', 'placed', 'paid', 'closed');
CREATE DOMAIN shop.tenant_key AS uuid NOT NULL;
CREATE DOMAIN shop.email AS text CHECK (VALUE ~ '^[^@ ]+@[^@ ]+$');

CREATE FUNCTION shop.current_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
    RETURN NULLIF(current_setting('shop.tenant_id', true), '')::uuid;

CREATE TABLE shop.tenants (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text NOT NULL, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE shop.users (
    tenant_id shop.tenant_key NOT NULL REFERENCES shop.tenants, id bigint GENERATED ALWAYS AS IDENTITY,
    email shop.email NOT NULL, active boolean NOT NULL DEFAULT true,
    PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, email));
CREATE TABLE shop.countries (code char(2) PRIMARY KEY, name text NOT NULL);
CREATE TABLE shop.customers (
    tenant_id shop.tenant_key NOT NULL REFERENCES shop.tenants, id bigint GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL, country char(2) REFERENCES shop.countries, note text,
    PRIMARY KEY (tenant_id, id));
CREATE TABLE shop.addresses (
    tenant_id shop.tenant_key NOT NULL, customer_id bigint NOT NULL, line smallint NOT NULL, street text NOT NULL,
    PRIMARY KEY (tenant_id, customer_id, line),
    FOREIGN KEY (tenant_id, customer_id) REFERENCES shop.customers ON DELETE CASCADE);
CREATE TABLE shop.products (
    tenant_id shop.tenant_key NOT NULL REFERENCES shop.tenants, sku text NOT NULL, title text NOT NULL,
    price numeric(10, 2) NOT NULL CHECK (price >= 0), PRIMARY KEY (tenant_id, sku));
CREATE TABLE shop.orders (
    tenant_id shop.tenant_key NOT NULL, id bigint GENERATED ALWAYS AS IDENTITY, customer_id bigint NOT NULL,
    placed_by bigint, state shop.order_state NOT NULL DEFAULT 'draft', placed_on date NOT NULL DEFAULT current_date,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, customer_id) REFERENCES shop.customers,
    FOREIGN KEY (tenant_id, placed_by) REFERENCES shop.users);
CREATE TABLE shop.order_lines (
    tenant_id shop.tenant_key NOT NULL, order_id bigint NOT NULL, line smallint NOT NULL, sku text NOT NULL,
    quantity integer NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (tenant_id, order_id, line),
    FOREIGN KEY (tenant_id, order_id) REFERENCES shop.orders ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, sku) REFERENCES shop.products);
CREATE TABLE shop.events (
    tenant_id shop.tenant_key NOT NULL REFERENCES shop.tenants, id bigint GENERATED ALWAYS AS IDENTITY,
    happened_at timestamptz NOT NULL DEFAULT now(), what text NOT NULL, payload jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, happened_at, id)) PARTITION BY RANGE (happened_at);
CREATE TABLE shop.events_2025 PARTITION OF shop.events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE shop.events_2026 PARTITION OF shop.events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE shop.order_history (
    tenant_id shop.tenant_key NOT NULL, order_id bigint NOT NULL, changed_at timestamptz NOT NULL DEFAULT now(),
    state shop.order_state NOT NULL, PRIMARY KEY (tenant_id, order_id, changed_at),
    FOREIGN KEY (tenant_id, order_id) REFERENCES shop.orders ON DELETE CASCADE);
CREATE TABLE shop.outbox (
    tenant_id shop.tenant_key NOT NULL REFERENCES shop.tenants, id bigint GENERATED ALWAYS AS IDENTITY,
    payload jsonb NOT NULL, PRIMARY KEY (tenant_id, id));

CREATE FUNCTION shop.guard_tenant() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.tenant_id IS DISTINCT FROM NULLIF(current_setting('shop.tenant_id', true), '')::uuid THEN
        RAISE EXCEPTION 'the row belongs to another tenant' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION shop.keep_state() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO shop.order_history (tenant_id, order_id, state) VALUES (NEW.tenant_id, NEW.id, NEW.state);
    RETURN NEW;
END $$;
CREATE TRIGGER keep_state AFTER UPDATE OF state ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.keep_state();

DO $$
DECLARE one text;
BEGIN
    FOREACH one IN ARRAY ARRAY['users', 'customers', 'addresses', 'products', 'orders', 'order_lines', 'events',
                               'events_2025', 'events_2026', 'order_history', 'outbox'] LOOP
        EXECUTE format('ALTER TABLE shop.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', one);
        EXECUTE format('CREATE POLICY tenant ON shop.%I USING (tenant_id = (SELECT shop.current_tenant()))
                        WITH CHECK (tenant_id = (SELECT shop.current_tenant()))', one);
    END LOOP;
    FOREACH one IN ARRAY ARRAY['customers', 'orders', 'products'] LOOP
        EXECUTE format('CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON shop.%I FOR EACH ROW
                        EXECUTE FUNCTION shop.guard_tenant()', one);
    END LOOP;
END $$;
ALTER TABLE shop.tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON shop.tenants FOR SELECT USING (id = (SELECT shop.current_tenant()));

CREATE VIEW shop.open_orders WITH (security_invoker = true, security_barrier = true) AS
    SELECT o.tenant_id, o.id, c.name, o.placed_on
    FROM shop.orders o JOIN shop.customers c USING (tenant_id) WHERE o.customer_id = c.id AND o.state = 'placed';
CREATE VIEW shop.sales WITH (security_invoker = true) AS
    SELECT l.tenant_id, l.sku, sum(l.quantity) AS sold FROM shop.order_lines l GROUP BY l.tenant_id, l.sku;
CREATE VIEW shop.country_names AS SELECT code, name FROM shop.countries;
CREATE TABLE shop.schema_migrations (version text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());

GRANT USAGE ON SCHEMA shop TO shop_app, shop_report;
GRANT EXECUTE ON FUNCTION shop.current_tenant() TO shop_app, shop_report;
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO shop_report;
GRANT SELECT ON shop.tenants, shop.countries, shop.open_orders, shop.sales, shop.country_names TO shop_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.users, shop.customers, shop.addresses, shop.products, shop.orders,
    shop.order_lines TO shop_app;
GRANT SELECT, INSERT ON shop.events, shop.order_history, shop.outbox TO shop_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA shop TO shop_app;
RESET ROLE;
