"""Visibility against the server's own answers: every role, object and privilege of random grant graphs."""

from __future__ import annotations

import random
from typing import Any

import psycopg
import pytest
from psycopg import sql

from rlsaudit.catalog.cluster import Role, Server
from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import COMMANDS, Relation
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.source.server import ScratchServer

TABLE_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
COLUMN_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "REFERENCES")
ROLES = [f"graph_{n}" for n in range(8)]
PREDEFINED = ["pg_read_all_data", "pg_write_all_data"]
RELATIONS = ["one.t1", "one.t2", "two.t3", "two.part", "one.v1"]
FUNCTIONS = ["one.f1", "two.f2", "one.f3"]

OBJECTS = """
CREATE SCHEMA one; CREATE SCHEMA two;
CREATE TABLE one.t1 (a int, b int, "C c" int); CREATE TABLE one.t2 (a int, b int);
CREATE TABLE two.t3 (gone int, a int, b int); ALTER TABLE two.t3 DROP COLUMN gone;
CREATE TABLE two.part (a int, b int) PARTITION BY LIST (a);
CREATE VIEW one.v1 AS SELECT a, b FROM one.t1;
CREATE SEQUENCE one.s1;
CREATE FUNCTION one.f1() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION two.f2() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION one.f3() RETURNS int LANGUAGE sql AS 'SELECT 1';
"""


def build(connection: psycopg.Connection[Any], dice: random.Random, major: int) -> None:
    """A random graph of roles, owners, grants and policies, in the open transaction."""
    connection.execute(OBJECTS)
    for role in ROLES:
        options = [dice.choice(["INHERIT", "NOINHERIT"])]
        options += [option for option in ("SUPERUSER", "BYPASSRLS") if dice.random() < 0.1]
        connection.execute(f"CREATE ROLE {role} {' '.join(options)}")
    predefined = PREDEFINED + ["pg_maintain"] * (major >= 17)
    for _ in range(10):
        member = dice.choice(ROLES)
        group = dice.choice([*ROLES[: ROLES.index(member)], *predefined])  # no cycles
        options = ""
        if major >= 16:
            chosen = [f"{option} {dice.choice(['TRUE', 'FALSE'])}" for option in ("INHERIT", "SET", "ADMIN")]
            options = " WITH " + ", ".join(dice.sample(chosen, dice.randint(1, 3)))
        connection.execute(f"GRANT {group} TO {member}{options}")
    for kind, names in (
        ("TABLE", RELATIONS),
        ("SCHEMA", ["one", "two"]),
        ("FUNCTION", FUNCTIONS),
        ("SEQUENCE", ["one.s1"]),
    ):
        for name in names:
            if dice.random() < 0.6:
                connection.execute(f"ALTER {kind} {name} OWNER TO {dice.choice(ROLES)}")
    if dice.random() < 0.5:
        database = sql.Identifier(connection.info.dbname)
        connection.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, sql.Identifier(dice.choice(ROLES)))
        )
    for _ in range(40):
        connection.execute(grant(dice, major))
    connection.execute(f"GRANT SELECT (ctid) ON one.t2 TO {dice.choice(ROLES)}")  # a system column counts for nothing
    for table in RELATIONS[:4]:
        connection.execute(f"ALTER TABLE {table} {dice.choice(['ENABLE', 'DISABLE'])} ROW LEVEL SECURITY")
        connection.execute(f"ALTER TABLE {table} {dice.choice(['FORCE', 'NO FORCE'])} ROW LEVEL SECURITY")
        for number in range(4):
            command, role = (
                dice.choice(["ALL", *COMMANDS]),
                dice.choice(["PUBLIC", *ROLES, "pg_read_all_data"]),
            )
            body = "WITH CHECK (true)" if command == "INSERT" else "USING (true)"
            connection.execute(
                f"CREATE POLICY p{number} ON {table} FOR {command} TO {role}, {dice.choice(ROLES)} {body}"
            )


def grant(dice: random.Random, major: int) -> str:
    """One random GRANT or REVOKE, also on what an owner holds by default."""
    target, names, privileges = dice.choice(
        [
            ("", RELATIONS, [*TABLE_PRIVILEGES, *["MAINTAIN"] * (major >= 17), "ALL"]),
            (
                "",
                RELATIONS,
                [f"{privilege} ({column})" for privilege in COLUMN_PRIVILEGES for column in ("a", "b")],
            ),
            ("SCHEMA", ["one", "two", "public"], ["USAGE", "CREATE", "ALL"]),
            ("FUNCTION", FUNCTIONS, ["EXECUTE"]),
            ("SEQUENCE", ["one.s1"], ["USAGE", "SELECT", "UPDATE"]),
        ]
    )
    who = dice.choice([*ROLES, *ROLES, "PUBLIC", "pg_database_owner"])
    word, to = dice.choice([("GRANT", "TO"), ("GRANT", "TO"), ("REVOKE", "FROM")])
    return f"{word} {dice.choice(privileges)} ON {target} {dice.choice(names)} {to} {who}"


@pytest.fixture(params=range(12))
def graph(request: pytest.FixtureRequest, server: ScratchServer) -> Any:
    """A connection inside a transaction that holds a random graph, and its catalog."""
    with psycopg.connect(server.conninfo()) as connection:
        build(connection, random.Random(request.param), server.major)
        yield connection, load_catalog(connection)
        connection.rollback()


def ask(connection: psycopg.Connection[Any], query: str, *parameters: Any) -> set[Any]:
    return set(connection.execute(query, parameters).fetchall())


def subjects(catalog: Catalog) -> list[Role]:
    return list(catalog.roles)


def in_scope(catalog: Catalog) -> list[Relation]:
    return [relation for relation in catalog.relations if relation.schema in ("one", "two")]


def test_relations(graph: Any) -> None:
    connection, catalog = graph
    visibility = Visibility(catalog)
    privileges = [*TABLE_PRIVILEGES, *["MAINTAIN"] * (catalog.server.major >= 17)]
    expected = ask(
        connection,
        """SELECT r.oid, c.oid, p FROM pg_roles r, pg_class c, unnest(%s::text[]) p
        WHERE c.relnamespace IN ('one'::regnamespace, 'two'::regnamespace) AND c.relkind IN ('r', 'p', 'v')
          AND has_table_privilege(r.oid, c.oid, p)""",
        privileges,
    )
    tables = [relation for relation in in_scope(catalog) if relation.kind != "sequence"]
    assert expected == {
        (role.oid, relation.oid, privilege)
        for role in subjects(catalog)
        for relation in tables
        for privilege in visibility.privileges(role.oid, relation)
    }


def test_sequences(graph: Any) -> None:
    connection, catalog = graph
    visibility = Visibility(catalog)
    (sequence,) = (relation for relation in in_scope(catalog) if relation.kind == "sequence")
    expected = ask(
        connection,
        """SELECT r.oid, p FROM pg_roles r, unnest(ARRAY['SELECT', 'UPDATE', 'USAGE']) p
        WHERE has_sequence_privilege(r.oid, 'one.s1', p)""",
    )
    assert expected == {(r.oid, p) for r in subjects(catalog) for p in visibility.privileges(r.oid, sequence)}


def test_columns_and_any_column(graph: Any) -> None:
    connection, catalog = graph
    visibility = Visibility(catalog)
    tables = [relation for relation in in_scope(catalog) if relation.kind != "sequence"]
    expected = ask(
        connection,
        """SELECT r.oid, a.attrelid, a.attname, p
        FROM pg_roles r, pg_attribute a JOIN pg_class c ON c.oid = a.attrelid, unnest(%s::text[]) p
        WHERE c.relnamespace IN ('one'::regnamespace, 'two'::regnamespace) AND c.relkind IN ('r', 'p', 'v')
          AND a.attnum > 0 AND NOT a.attisdropped AND has_column_privilege(r.oid, a.attrelid, a.attnum, p)""",
        list(COLUMN_PRIVILEGES),
    )
    assert expected == {
        (role.oid, relation.oid, column, privilege)
        for role in subjects(catalog)
        for relation in tables
        for privilege in COLUMN_PRIVILEGES
        for column in visibility.columns(role.oid, relation, privilege)
    }
    usable = ask(
        connection,
        """SELECT r.oid, c.oid, p FROM pg_roles r, pg_class c, unnest(%s::text[]) p
        WHERE c.relnamespace IN ('one'::regnamespace, 'two'::regnamespace) AND c.relkind IN ('r', 'p', 'v')
          AND has_any_column_privilege(r.oid, c.oid, p)
          AND has_schema_privilege(r.oid, c.relnamespace, 'USAGE')""",
        list(COLUMN_PRIVILEGES),
    )
    assert usable == {
        (role.oid, relation.oid, privilege)
        for role in subjects(catalog)
        for relation in tables
        for privilege in COLUMN_PRIVILEGES
        if visibility.may(role.oid, relation, privilege)
    }


def test_schemas(graph: Any) -> None:
    connection, catalog = graph
    visibility = Visibility(catalog)
    expected = ask(
        connection,
        """SELECT r.oid, n.nspname, p FROM pg_roles r, pg_namespace n, unnest(ARRAY['USAGE', 'CREATE']) p
        WHERE n.nspname IN ('one', 'two', 'public') AND has_schema_privilege(r.oid, n.oid, p)""",
    )
    names = ("one", "two", "public")
    found = {(r.oid, s, "USAGE") for r in catalog.roles for s in names if visibility.may_use_schema(r.oid, s)}
    found |= {(r.oid, s, "CREATE") for r in catalog.roles for s in names if visibility.may_create_in(r.oid, s)}
    assert expected == found


def test_functions(graph: Any) -> None:
    connection, catalog = graph
    visibility = Visibility(catalog)
    expected = ask(
        connection,
        """SELECT r.oid, f.oid FROM pg_roles r, pg_proc f
        WHERE f.pronamespace IN ('one'::regnamespace, 'two'::regnamespace)
          AND has_function_privilege(r.oid, f.oid, 'EXECUTE')
          AND has_schema_privilege(r.oid, f.pronamespace, 'USAGE')""",
    )
    assert expected == {
        (r.oid, f.oid) for r in catalog.roles for f in catalog.functions if visibility.may_execute(r.oid, f)
    }


def test_roles_that_are_held_and_that_can_be_set(graph: Any) -> None:
    connection, catalog = graph
    visibility = Visibility(catalog)
    held = "SELECT a.oid, b.oid FROM pg_roles a, pg_roles b WHERE pg_has_role(a.oid, b.oid, %s)"
    assert ask(connection, held, "USAGE") == {(r.oid, o) for r in catalog.roles for o in visibility.inherits(r.oid)}
    settable = ask(connection, held, "SET" if catalog.server.major >= 16 else "MEMBER")
    assert settable == {(r.oid, o) for r in catalog.roles for o in visibility.becomes(r.oid)}


def test_row_security(graph: Any) -> None:
    """row_security_active() answers for the current role, so each role is taken on in turn."""
    connection, catalog = graph
    visibility = Visibility(catalog)
    tables = [relation for relation in in_scope(catalog) if relation.kind in ("table", "partitioned table")]
    for role in (role for role in catalog.roles if role.name in ROLES):
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role.name)))
        for relation in tables:
            (active,) = connection.execute("SELECT row_security_active(%s::oid)", [relation.oid]).fetchone()
            why = visibility.exempt(role.oid, relation)
            assert (why is None) == active
            assert why in (None, "superuser", "BYPASSRLS", "row security is off", "owner without FORCE")
        connection.execute("RESET ROLE")


def test_policies(graph: Any) -> None:
    connection, catalog = graph
    visibility = Visibility(catalog)
    expected = ask(
        connection,
        """SELECT r.oid, c, p.oid
        FROM pg_roles r, pg_policy p, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) c
        WHERE (p.polcmd = '*' OR p.polcmd::text = translate(left(c, 1), 'SIUD', 'rawd'))
          AND EXISTS (SELECT FROM unnest(p.polroles) o WHERE o = 0 OR pg_has_role(r.oid, o, 'USAGE'))""",
    )
    assert expected == {
        (role.oid, command, policy.oid)
        for role in catalog.roles
        for relation in in_scope(catalog)
        for command in COMMANDS
        for policy in visibility.policies(role.oid, relation, command)
    }


def empty(*roles: Role) -> Catalog:
    return Catalog(Server("18.0", 180000, "", "d", "postgres", True, True, False, ""), roles=roles)


def test_the_systems_own_schemas_are_open_and_unknown_ones_are_not() -> None:
    visibility = Visibility(empty(Role(10, "a", False, True, False, False, True, False, False)))
    assert visibility.may_use_schema(10, "pg_catalog")
    assert visibility.may_use_schema(10, "information_schema")
    assert not visibility.may_use_schema(10, "nowhere")
    assert not visibility.may_create_in(10, "pg_catalog")


def test_public_and_a_role_that_is_gone_can_be_asked_about() -> None:
    visibility = Visibility(empty())
    table = Relation(1, "public", "t", "table", 10, rls_enabled=True)
    assert visibility.privileges(0, table) == frozenset()
    assert visibility.exempt(99, table) is None
    assert visibility.inherits(99) == {99}


def test_the_first_reason_for_an_exemption_is_given() -> None:
    superuser = Role(10, "a", True, True, False, False, True, False, True)
    bypass = Role(11, "b", False, True, False, False, True, False, True)
    owner = Role(12, "c", False, True, False, False, True, False, False)
    visibility = Visibility(empty(superuser, bypass, owner))
    on, off = Relation(1, "s", "t", "table", 12, rls_enabled=True), Relation(2, "s", "u", "table", 12)
    forced = Relation(3, "s", "v", "table", 12, rls_enabled=True, rls_forced=True)
    assert [visibility.exempt(10, r) for r in (on, off)] == ["superuser", "superuser"]
    assert [visibility.exempt(11, r) for r in (on, off)] == ["BYPASSRLS", "BYPASSRLS"]
    assert [visibility.exempt(12, r) for r in (on, off, forced)] == [
        "owner without FORCE",
        "row security is off",
        None,
    ]
