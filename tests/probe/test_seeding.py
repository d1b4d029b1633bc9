"""Seeding a schema with everything that makes rows hard to invent."""

from __future__ import annotations

import pytest

from rlsaudit.probe.seeding import plan
from rlsaudit.probe.seeding.populate import populate
from rlsaudit.probe.seeding.seed import ROWS_PER_TENANT

NASTY = r"""
CREATE ROLE n_app LOGIN;
CREATE TYPE stage AS ENUM ('draft', 'sent', 'paid');
CREATE DOMAIN sku AS text CHECK (VALUE ~ '^[A-Z]{3}-[0-9]{4}$');
CREATE DOMAIN share AS numeric CHECK (VALUE > 0 AND VALUE <= 1);
CREATE DOMAIN code AS varchar(4);
CREATE DOMAIN letters AS text CHECK (VALUE ~ '^[[:upper:]]{3}$');
CREATE DOMAIN mail AS text CHECK (VALUE ~ '^[^@ ]+@[^@ ]+\.[a-z]+$');
CREATE TABLE tenants (
    tenant_id uuid PRIMARY KEY, slug varchar(12) NOT NULL UNIQUE CHECK (slug = lower(slug)),
    plan text NOT NULL CHECK (plan IN ('free', 'pro')));
CREATE TABLE users (
    tenant_id uuid NOT NULL REFERENCES tenants, user_id uuid, email mail NOT NULL, manager uuid,
    PRIMARY KEY (tenant_id, user_id), FOREIGN KEY (tenant_id, manager) REFERENCES users (tenant_id, user_id), UNIQUE (email));
CREATE UNIQUE INDEX ON users (lower(email));
CREATE TABLE products (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id uuid NOT NULL REFERENCES tenants, sku sku NOT NULL,
    price numeric(8, 2) NOT NULL CHECK (price > 0), sale_price numeric(8, 2), margin share NOT NULL,
    weight_grams smallint NOT NULL CHECK (weight_grams BETWEEN 10 AND 500),
    label text GENERATED ALWAYS AS (sku::text || ' ') STORED, UNIQUE (tenant_id, sku), CHECK (sale_price < price));
CREATE TABLE orders (
    tenant_id uuid NOT NULL, order_no int NOT NULL, buyer uuid NOT NULL, stage stage NOT NULL DEFAULT 'draft',
    placed timestamptz NOT NULL DEFAULT now(), paid_at timestamptz, channel char(1) NOT NULL CHECK (channel IN ('w', 's')),
    PRIMARY KEY (tenant_id, order_no), FOREIGN KEY (tenant_id, buyer) REFERENCES users (tenant_id, user_id),
    CHECK ((stage = 'paid') = (paid_at IS NOT NULL)), CHECK (paid_at >= placed));
CREATE TABLE lines (
    tenant_id uuid NOT NULL, order_no int NOT NULL, line_no int NOT NULL CHECK (line_no > 0), product bigint NOT NULL REFERENCES products,
    quantity int NOT NULL CHECK (quantity BETWEEN 1 AND 99), PRIMARY KEY (tenant_id, order_no, line_no),
    FOREIGN KEY (tenant_id, order_no) REFERENCES orders);
CREATE TABLE bookings (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), tenant_id uuid NOT NULL REFERENCES tenants,
    during tstzrange NOT NULL CHECK (NOT isempty(during)),
    EXCLUDE USING gist (during WITH &&));
CREATE TABLE contacts (
    id int PRIMARY KEY, tenant_id uuid NOT NULL REFERENCES tenants, phone text, mail mail, is_primary boolean NOT NULL,
    CHECK (num_nonnulls(phone, mail) = 1), CHECK (phone ~ '^\+[0-9]{7,15}$'));
CREATE UNIQUE INDEX ON contacts (tenant_id) WHERE is_primary;
CREATE TABLE ranged (tenant_id uuid NOT NULL, at date NOT NULL, what text NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE ranged_a PARTITION OF ranged FOR VALUES FROM ('2024-01-01') TO ('2024-07-01');
CREATE TABLE ranged_b PARTITION OF ranged FOR VALUES FROM ('2024-07-01') TO ('2025-01-01');
CREATE TABLE listed (tenant_id uuid NOT NULL, region text NOT NULL) PARTITION BY LIST (region);
CREATE TABLE listed_a PARTITION OF listed FOR VALUES IN ('eu', 'us');
CREATE TABLE hashed (tenant_id uuid NOT NULL, x int NOT NULL) PARTITION BY HASH (tenant_id);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE audits (tenant_id uuid NOT NULL, action text NOT NULL, amount int NOT NULL);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.action NOT IN ('created', 'removed') THEN RAISE EXCEPTION 'unknown action'; END IF;
    IF NEW.amount > 1000 THEN RAISE EXCEPTION 'too much'; END IF; RETURN NEW; END $$;
CREATE TRIGGER refuses BEFORE INSERT ON audits FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TABLE settings (
    tenant_id uuid PRIMARY KEY REFERENCES tenants, document jsonb NOT NULL CHECK (jsonb_typeof(document) = 'object'),
    ip inet NOT NULL, days int4range NOT NULL,
    tags text[] NOT NULL, key bytea NOT NULL, code code NOT NULL, letters letters NOT NULL, fraction numeric(3, 3) NOT NULL);
CREATE TABLE nodes (id int PRIMARY KEY, tenant_id uuid NOT NULL REFERENCES tenants, parent int NOT NULL REFERENCES nodes);
CREATE TABLE first (id int PRIMARY KEY, tenant_id uuid NOT NULL, second int);
CREATE TABLE second (id int PRIMARY KEY, tenant_id uuid NOT NULL, first int NOT NULL REFERENCES first);
ALTER TABLE first ADD FOREIGN KEY (second) REFERENCES second;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO n_app;
"""
ENOUGH = 0.9


def test_nasty_schema_is_filled(schema) -> None:
    loaded = schema(NASTY)
    with loaded.connect() as connection:
        world = populate(connection, loaded.catalog, loaded.tenancy)
        wanted = got = 0
        lacking = {}
        for relation in plan.seedable(loaded.catalog, loaded.tenancy):
            key = (
                next(c for c in loaded.catalog.constraints_of(relation.oid) if c.kind == "primary key")
                if relation.name == "settings"
                else None
            )
            each = 1 if loaded.tenancy.of(relation.oid).kind == "registry" or key else ROWS_PER_TENANT
            for tenant in world.tenants:
                found = min(each, len(world.of(relation.oid, tenant.key)))
                wanted, got = wanted + each, got + found
                if found < each:
                    lacking[relation.name, tenant.name] = (found, each, world.failures.get(relation.oid, ""))
        partitions = {
            relation.name: connection.execute(f"SELECT count(*) FROM {relation.qualified}").fetchone()[0]
            for relation in loaded.catalog.relations
            if relation.is_partition
        }
    assert wanted > 80
    assert got / wanted >= ENOUGH, (got, wanted, lacking)
    empty_allowed = (
        1 if min(partitions["hashed_0"], partitions["hashed_1"]) == 0 else 0
    )  # three keys may share a remainder
    assert sum(count == 0 for count in partitions.values()) <= empty_allowed, partitions


def test_spare_rows_are_not_in_the_database(schema) -> None:
    loaded = schema(NASTY)
    with loaded.connect() as connection:
        world = populate(connection, loaded.catalog, loaded.tenancy)
    assert len(world.spare) > 30
    products = loaded.oid("public.products")
    for (oid, owner), rows in world.spare.items():
        if oid == products:
            assert not {row["sku"] for row in rows} & {row["sku"] for row in world.of(oid, owner)}


def test_marks_tell_tenants_apart_in_every_relation(schema) -> None:
    loaded = schema(NASTY)
    with loaded.connect() as connection:
        world = populate(connection, loaded.catalog, loaded.tenancy)
    for (oid, owner), rows in world.rows.items():
        if rows:
            marked = {v for row in rows for v in row.values() if v and world.marks.get(v) == owner}
            assert marked, loaded.catalog.relation(oid).name


def test_what_cannot_be_filled_is_reported(schema) -> None:
    loaded = schema("""
        CREATE TABLE tenants (tenant_id int PRIMARY KEY);
        CREATE TABLE no_way (tenant_id int NOT NULL REFERENCES tenants, x int CHECK (x > 1 AND x < 1) NOT NULL);
        CREATE TABLE below (tenant_id int NOT NULL REFERENCES tenants, y int NOT NULL);
        CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'never, ever'; END $$;
        CREATE TRIGGER refuses BEFORE INSERT ON below FOR EACH ROW EXECUTE FUNCTION never();
    """)
    with loaded.connect() as connection:
        world = populate(connection, loaded.catalog, loaded.tenancy)
    assert "no_way_x_check" in world.failures[loaded.oid("public.no_way")]
    assert "never, ever" in world.failures[loaded.oid("public.below")]
    assert not world.failures.keys() & {loaded.oid("public.tenants")}


def test_unseedable_relation_is_not_covered(schema) -> None:
    loaded = schema("""
        CREATE ROLE n_app LOGIN;
        CREATE TABLE good (tenant_id int NOT NULL, x text NOT NULL);
        CREATE TABLE no_way (tenant_id int NOT NULL, x int CHECK (x > 1 AND x < 1) NOT NULL);
        ALTER TABLE good ENABLE ROW LEVEL SECURITY; ALTER TABLE no_way ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON good USING (tenant_id = current_setting('app.tenant_id')::int);
        CREATE POLICY own ON no_way USING (tenant_id = current_setting('app.tenant_id')::int);
        GRANT SELECT, INSERT, UPDATE, DELETE ON good, no_way TO n_app;
    """)
    result = loaded.probe()
    assert {cell.state for cell in result.cells if cell.relation == "public.no_way"} == {"not covered"}
    assert {cell.state for cell in result.cells if cell.relation == "public.good"} == {"held"}


WIDE = """
CREATE ROLE n_app LOGIN;
CREATE TABLE wide (tenant_id int NOT NULL, {});
ALTER TABLE wide ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON wide USING (tenant_id = current_setting('app.tenant_id')::int);
GRANT SELECT, INSERT ON wide TO n_app;
"""


def test_a_row_that_does_not_fit_into_a_page_is_left_partly_empty(schema) -> None:
    columns = ", ".join(f"c{at} {('timestamptz', f'bigint CHECK (c{at} > 0)', 'text')[at % 3]}" for at in range(1500))
    loaded = schema(WIDE.format(columns))
    with loaded.connect() as connection:
        world = populate(connection, loaded.catalog, loaded.tenancy)
    for tenant in world.tenants:
        rows = world.of(loaded.oid("public.wide"), tenant.key)
        assert rows, world.failures
        assert all(any(value and value in world.marks for value in row.values()) for row in rows)


SESSIONS = """
CREATE ROLE s_app LOGIN;
CREATE TABLE orgs (id uuid PRIMARY KEY, name text NOT NULL);
CREATE TABLE users (id uuid PRIMARY KEY, name text NOT NULL);
CREATE TABLE sessions (token uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES users);
CREATE FUNCTION me() RETURNS uuid LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS
    $$ SELECT user_id FROM sessions WHERE token = NULLIF(current_setting('app.session_id', true), '')::uuid $$;
CREATE TABLE members (org_id uuid NOT NULL REFERENCES orgs, user_id uuid NOT NULL REFERENCES users, PRIMARY KEY (org_id, user_id));
CREATE TABLE mails (id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES users, address text NOT NULL);
CREATE FUNCTION mine() RETURNS SETOF uuid LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS
    $$ SELECT org_id FROM members WHERE user_id = me() $$;
ALTER TABLE orgs ENABLE ROW LEVEL SECURITY; ALTER TABLE members ENABLE ROW LEVEL SECURITY; ALTER TABLE mails ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON orgs USING (id IN (SELECT mine())); CREATE POLICY p ON members USING (org_id IN (SELECT mine()));
CREATE POLICY p ON mails USING (user_id = me());
GRANT SELECT ON orgs, members, mails TO s_app;
"""


@pytest.mark.parametrize("before", ["", "CREATE TABLE settings (org_id uuid PRIMARY KEY);"])  # one row more or less
def test_a_session_is_that_of_the_user_whose_name_it_bears(schema, before) -> None:
    """The context names a session, which a table ties to a user: rows of that user are the session's own."""
    result = schema(before + SESSIONS).probe()
    assert {(c.relation, c.state) for c in result.cells if c.command == "SELECT" and c.trials} == {
        ("public.orgs", "held"), ("public.members", "held"), ("public.mails", "held"),
    }  # fmt: skip
