"""Seeding a schema that is nasty in every way: the server is the solver, and next to nothing may be left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlsaudit.config import load
from rlsaudit.errors import UsageError
from rlsaudit.probe.seeding import plan
from rlsaudit.probe.seeding.populate import populate
from rlsaudit.probe.seeding.seed import ROWS_PER_TENANT
from rlsaudit.tenancy.infer import Declared, infer
from rlsaudit.tenancy.model import Seeding

NASTY = (Path(__file__).parent.parent / "zoo" / "nasty_seed.sql").read_text(encoding="utf-8")
ENOUGH = 0.98
NOT_BY_INSERT = {
    "public.job_log": "by triggers",
    "public.receipts": "made by a function",
    "public.sealed": "triggers and rules off",
}


@pytest.mark.pg(15)
def test_nearly_every_wanted_row_is_made(schema) -> None:
    loaded = schema(NASTY)
    with loaded.connect() as connection:
        world = populate(connection, loaded.catalog, loaded.tenancy)
        assert len(world.tenants) >= plan.TENANTS
        wanted = got = 0
        lacking = {}
        relations = [r for r in plan.seedable(loaded.catalog, loaded.tenancy) if loaded.tenancy.of(r.oid).tenant_data]
        for relation in relations:
            each = 1 if relation.oid == loaded.tenancy.registry else ROWS_PER_TENANT
            for tenant in world.tenants:
                found = min(each, len(world.of(relation.oid, tenant.key)))
                wanted, got = wanted + each, got + found
                if found < each:
                    lacking[relation.name, tenant.name] = world.failures.get(relation.oid, "")
        assert len(relations) >= 20
        assert got / wanted >= ENOUGH, (got, wanted, lacking)
        empty = [
            relation.name
            for relation in loaded.catalog.relations
            if relation.is_partition
            and connection.execute(f"SELECT FROM {relation.qualified} LIMIT 1").fetchone() is None
        ]
    assert not empty
    # Rows that no INSERT made are flagged, and there are no others of that kind.
    failures = {loaded.catalog.relation(oid).qualified: said for oid, said in world.failures.items()}
    assert failures.keys() == NOT_BY_INSERT.keys(), failures
    assert all(how in failures[name] for name, how in NOT_BY_INSERT.items())


def test_tenant_keys_satisfy_their_domain_and_can_be_mistaken_for_each_other(schema) -> None:
    loaded = schema(NASTY)
    with loaded.connect() as connection:
        world = populate(connection, loaded.catalog, loaded.tenancy)
    keys = [tenant.key for tenant in world.tenants]
    assert all(key.startswith("org_") and len(key) >= 8 for key in keys)
    assert len({key.lower() for key in keys}) < len(keys) or len({key[:-1] for key in keys}) < len(keys)


@pytest.mark.parametrize(
    ("domain", "needle"),
    [
        ("char(26) CHECK (VALUE ~ '^[0-9A-HJKMNP-TV-Z]{26}$')", ""),
        ("varchar(21) CHECK (VALUE ~ '^[A-Za-z0-9_-]{21}$')", ""),
        ("text CHECK (VALUE ~ '^[0-9A-Za-z]{27}$')", ""),
        ("text CHECK (VALUE LIKE 'usr\\_%' AND length(VALUE) = 20)", "usr_"),
        ("text CHECK (starts_with(VALUE, 'acct-') AND char_length(VALUE) BETWEEN 12 AND 14)", "acct-"),
        ("integer CHECK (VALUE > 40000)", ""),
        ("text CHECK (VALUE IN ('north', 'south', 'west'))", ""),
        ("text CHECK (VALUE ~ '^[a-z]+(-[a-z]+)*$' AND VALUE = lower(VALUE))", ""),
    ],
)
def test_keys_of_all_kinds(schema, domain, needle) -> None:
    loaded = schema(f"""
        CREATE DOMAIN key AS {domain};
        CREATE TABLE accounts (account_id key PRIMARY KEY, name text NOT NULL);
        CREATE TABLE notes (id serial PRIMARY KEY, account_id key NOT NULL REFERENCES accounts, body text NOT NULL);
        ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON notes USING (account_id::text = current_setting('app.account_id'));
    """)
    with loaded.connect() as connection:
        world = populate(connection, loaded.catalog, loaded.tenancy)
    assert len(world.tenants) >= plan.TENANTS
    for relation in ("public.accounts", "public.notes"):
        for tenant in world.tenants:
            assert world.of(loaded.oid(relation), tenant.key), (relation, tenant, world.failures)
    assert all(tenant.key.startswith(needle) for tenant in world.tenants)


HIERARCHY = """
    CREATE ROLE h_app LOGIN;
    CREATE TABLE users (id uuid PRIMARY KEY, email text NOT NULL UNIQUE);
    CREATE TABLE orgs (id uuid PRIMARY KEY, name text NOT NULL, owner_id uuid REFERENCES users);
    CREATE TABLE roles (id serial PRIMARY KEY, code text NOT NULL UNIQUE, rank integer NOT NULL);
    INSERT INTO roles (code, rank) VALUES ('viewer', 1), ('accountant', 5), ('owner', 9);
    CREATE TABLE org_members (org_id uuid NOT NULL REFERENCES orgs, user_id uuid NOT NULL REFERENCES users,
        role_id integer NOT NULL REFERENCES roles, state text NOT NULL DEFAULT 'invited', ends timestamptz, PRIMARY KEY (org_id, user_id));
    CREATE TABLE teams (id uuid PRIMARY KEY, org_id uuid NOT NULL REFERENCES orgs, parent uuid REFERENCES teams);
    CREATE TABLE team_members (team_id uuid NOT NULL REFERENCES teams, user_id uuid NOT NULL REFERENCES users, level smallint NOT NULL,
        PRIMARY KEY (team_id, user_id));
    CREATE TABLE projects (id uuid PRIMARY KEY, org_id uuid NOT NULL REFERENCES orgs,
        team_id uuid NOT NULL REFERENCES teams, stage text NOT NULL);
    CREATE TABLE invoices (id bigserial PRIMARY KEY, org_id uuid NOT NULL REFERENCES orgs, amount integer NOT NULL);
    CREATE TABLE secrets (id bigserial PRIMARY KEY, org_id uuid NOT NULL REFERENCES orgs, body text NOT NULL);
    CREATE FUNCTION uid() RETURNS uuid LANGUAGE sql STABLE AS $$ SELECT NULLIF(current_setting('app.user_id', true), '')::uuid $$;
    CREATE FUNCTION has_role(o uuid, wanted text) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER AS $$
        SELECT EXISTS (SELECT FROM org_members m JOIN roles r ON r.id = m.role_id WHERE m.org_id = o AND m.user_id = uid()
            AND m.state = 'active' AND (m.ends IS NULL OR m.ends > now()) AND r.rank >= (SELECT rank FROM roles WHERE code = wanted)) $$;
    CREATE FUNCTION my_teams() RETURNS SETOF uuid LANGUAGE sql STABLE SECURITY DEFINER AS $$
        WITH RECURSIVE t AS (SELECT team_id AS id FROM team_members WHERE user_id = uid() AND level >= 5
            UNION SELECT c.id FROM teams c JOIN t ON c.parent = t.id) SELECT id FROM t $$;
    CREATE POLICY p ON users USING (id = uid());
    CREATE POLICY p ON orgs USING (has_role(id, 'viewer'));
    CREATE POLICY p ON org_members USING (user_id = uid());
    CREATE POLICY p ON teams USING (id IN (SELECT my_teams()));
    CREATE POLICY p ON team_members USING (team_id IN (SELECT my_teams()));
    CREATE POLICY p ON projects USING (team_id IN (SELECT my_teams()) AND stage IN ('open', 'team'));
    CREATE POLICY p ON invoices USING (has_role(org_id, 'accountant'));
    CREATE POLICY p ON secrets USING (EXISTS (SELECT FROM orgs o WHERE o.id = secrets.org_id AND o.owner_id = uid()));
    DO $$ DECLARE one text; BEGIN
        FOR one IN SELECT tablename FROM pg_policies LOOP EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', one); END LOOP; END $$;
    GRANT SELECT ON ALL TABLES IN SCHEMA public TO h_app;
"""


def test_each_tenant_sees_its_rows_through_teams_roles_and_hierarchies(schema) -> None:
    loaded = schema(HIERARCHY)
    with loaded.connect() as connection:
        world = populate(connection, loaded.catalog, loaded.tenancy)
        guarded = {p.relation for p in loaded.catalog.policies}
        blind = []
        for tenant in world.tenants:
            for oid in guarded:
                relation = loaded.catalog.relation(oid)
                with connection.transaction(force_rollback=True):
                    connection.execute("SET LOCAL ROLE h_app")
                    connection.execute("SELECT set_config('app.user_id', %s, true)", (tenant.user,))
                    if connection.execute(f"SELECT FROM {relation.qualified} LIMIT 1").fetchone() is None:
                        blind.append((tenant.name, relation.name))
    assert len(guarded) == 8
    assert not blind


def test_relations_without_tenant_data_are_given_rows_too(schema) -> None:
    loaded = schema("""
        CREATE ROLE g_app LOGIN;
        CREATE TABLE notes (tenant_id integer NOT NULL, body text NOT NULL);
        CREATE TABLE currencies (code char(3) PRIMARY KEY CHECK (code ~ '^[A-Z]{3}$'), name text NOT NULL);
        CREATE TABLE closed (code integer PRIMARY KEY CHECK (code > 1 AND code < 1));
        ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON notes USING (tenant_id = current_setting('app.tenant_id')::int);
        GRANT SELECT ON currencies, closed TO g_app;
        GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO g_app;
    """)
    cells = {(cell.relation, cell.command): cell for cell in loaded.probe().cells}
    assert cells["public.currencies", "SELECT"].state == "held", cells["public.currencies", "SELECT"]
    assert cells["public.closed", "SELECT"].state == "not covered"
    assert "closed_code_check" in cells["public.closed", "SELECT"].reason


def test_nothing_but_keys_is_updated_all_the_same(schema) -> None:
    loaded = schema("""
        CREATE ROLE k_app LOGIN;
        CREATE TABLE tags (tenant_id integer NOT NULL, tag text NOT NULL, PRIMARY KEY (tenant_id, tag));
        ALTER TABLE tags ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON tags FOR SELECT USING (tenant_id = current_setting('app.tenant_id')::int);
        CREATE POLICY careless ON tags FOR UPDATE USING (true);
        GRANT SELECT, UPDATE (tag) ON tags TO k_app;
    """)
    result = loaded.probe()
    cell = next(cell for cell in result.cells if (cell.relation, cell.command) == ("public.tags", "UPDATE"))
    assert cell.state == "leak", cell


HARD = """
    CREATE TABLE tenants (tenant_id integer PRIMARY KEY);
    CREATE TABLE coded (tenant_id integer NOT NULL REFERENCES tenants, code text NOT NULL CHECK (md5(code) IN
        (md5('open-sesame'), md5('mellon'))));
    CREATE TABLE parents (id integer PRIMARY KEY, tenant_id integer NOT NULL REFERENCES tenants,
        token text NOT NULL CHECK (md5(md5(token)) = 'a4a0a1b5a1d6b1a9e0b0c4e2f7f1d3c5'));
"""


def test_values_and_statements_of_the_user(schema) -> None:
    loaded = schema(HARD)
    values = Seeding(values={"public.coded.code": ("mellon",)})
    tenancy = infer(loaded.catalog, Declared(seeding=values))
    with loaded.connect() as connection:
        world = populate(connection, loaded.catalog, tenancy)
    coded = loaded.oid("public.coded")
    assert all({row["code"] for row in world.of(coded, tenant.key)} == {"mellon"} for tenant in world.tenants)
    assert "parents_token_check" in world.failures[loaded.oid("public.parents")]


def test_statements_of_the_user_run_for_every_tenant(schema) -> None:
    loaded = schema(HARD)
    insert = "INSERT INTO coded VALUES (:tenant, 'mellon'), (:tenant, 'open-sesame')"
    with loaded.connect() as connection:
        world = populate(connection, loaded.catalog, infer(loaded.catalog, Declared(seeding=Seeding(sql=(insert,)))))
    coded = loaded.oid("public.coded")
    assert coded not in world.failures or "by triggers or functions" in world.failures[coded]
    assert all(len(world.of(coded, tenant.key)) >= 2 for tenant in world.tenants)


def test_a_statement_of_the_user_that_fails_is_an_error(schema) -> None:
    loaded = schema(HARD)
    tenancy = infer(loaded.catalog, Declared(seeding=Seeding(sql=("INSERT INTO coded VALUES (:tenant, 'no')",))))
    with (
        loaded.connect() as connection,
        pytest.raises(UsageError, match=r"statement 1, for tenant 1: .*coded_code_check"),
    ):
        populate(connection, loaded.catalog, tenancy)


def test_a_value_for_an_unknown_column_is_an_error(schema) -> None:
    loaded = schema(HARD)
    with pytest.raises(UsageError, match="no such column"):
        infer(loaded.catalog, Declared(seeding=Seeding(values={"public.coded.cod": ("x",)})))


def test_what_to_write_in_the_configuration_is_said(schema) -> None:
    loaded = schema(HARD)
    with loaded.connect() as connection:
        world = populate(connection, loaded.catalog, loaded.tenancy)
    said = world.failures[loaded.oid("public.parents")]
    assert '"public.parents.token" = [...]' in said
    assert "[seed] sql" in said


def test_seed_in_the_configuration(tmp_path) -> None:
    path = tmp_path / "rlsaudit.toml"
    path.write_text('[seed]\nnumber = 7\nsql = ["SELECT 1"]\n[seed.values]\n"public.t.c" = ["x", "y"]\n')
    config = load(path, tmp_path)
    assert config.seed == 7
    assert config.declared.seeding == Seeding(("SELECT 1",), {"public.t.c": ("x", "y")})
    path.write_text("seed = 3\n")
    assert load(path, tmp_path).seed == 3
    for text, word in (("[seed]\nsqls = []", "did you mean 'sql'"), ('[seed.values]\n"a.b.c" = []', "at least one")):
        path.write_text(text)
        with pytest.raises(UsageError, match=word):
            load(path, tmp_path)
