"""Random policies on a live server: what is proven holds for every row and session of a small world, and what is
refuted is broken by the rows and settings that the prover names."""

from __future__ import annotations

import itertools
import logging
import os
import runpy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.prove.prove import Proof, prove
from rlsaudit.source.server import ScratchServer
from rlsaudit.tenancy.model import ApplicationRole, Classified, Step, Tenancy

GRAMMAR = runpy.run_path(str(Path(__file__).with_name("grammar.py")))
X, Y, bools = GRAMMAR["X"], GRAMMAR["Y"], GRAMMAR["bools"]
POLICIES = int(os.environ.get("RLSAUDIT_SOUNDNESS_POLICIES", "300"))
"""How many are held against the server; the nightly run sets 20000."""
TABLES = 12

SESSIONS = [
    (None, None), ("", ""), ("1", None), (None, "1"), ("1", ""), ("", "1"), *itertools.product("12", "12"),
    ("a", "1"), ("1,2", "2"), ("A", "a,A"),
]  # fmt: skip
ROWS = [
    (*row, (None, 1, 2, 3)[number * 7 % 4])
    for number, row in enumerate(
        itertools.product((None, 1, 2), (None, "", "1", "2", "a", "A"), (None, 1, 2), (None, True, False))
    )
]
MEMBERS = {"1": {1, 2}, "2": {2}}
PARENTS = {1: 1, 2: 2, 3: 1}
KEYS = ("k_int", "k_text", "parent")
CONSTRAINTS = {
    "CHECK (true)": "true",
    "CHECK (k_text <> '')": "k_text <> ''",
    "CHECK (k_text = lower(k_text))": "k_text = lower(k_text)",
    "CHECK (k_int > 1 OR k_text = '1')": "k_int > 1 OR k_text = '1'",
    "FOREIGN KEY (k_text) REFERENCES slugs": "k_text <> '' AND k_text = lower(k_text)",
}
"""Each with what holds for the rows that it lets in, where it is not NULL."""

SETUP = f"""
CREATE ROLE random_app; CREATE ROLE random_group; GRANT random_group TO random_app; CREATE ROLE random_other;
CREATE TABLE m (u text, k int);
INSERT INTO m SELECT u, k FROM unnest(ARRAY['', '1', '2', NULL]) u, generate_series(1, 2) k
  WHERE u IS NULL OR u <> k::text;
CREATE TABLE members (k int NOT NULL, u text NOT NULL, CHECK (u <> ''), PRIMARY KEY (k, u));
INSERT INTO members VALUES (1, '1'), (2, '1'), (2, '2');
CREATE TABLE parents (id int PRIMARY KEY, k int NOT NULL);
INSERT INTO parents VALUES (1, 1), (2, 2), (3, 1);
ALTER TABLE parents ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON parents USING (k = NULLIF({X}, '')::int);
CREATE TABLE slugs (slug text PRIMARY KEY CHECK (slug <> '' AND slug = lower(slug)));
INSERT INTO slugs VALUES ('1'), ('2'), ('a');
GRANT SELECT ON m, members, parents TO random_app;
CREATE FUNCTION of_sql() RETURNS int STABLE LANGUAGE sql AS $$ SELECT NULLIF({X}, '')::int $$;
CREATE FUNCTION of_plpgsql() RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN NULLIF({Y}, ''); END $$;
CREATE FUNCTION of_branches() RETURNS int STABLE LANGUAGE plpgsql AS $$
DECLARE found int; asked text := {X};
BEGIN
  IF asked IS NULL OR asked = '' THEN RETURN NULL; END IF;
  SELECT p.id INTO found FROM public.parents p WHERE p.id = asked::int;
  IF found = 2 THEN RAISE EXCEPTION 'never'; ELSIF found IS NULL THEN RETURN asked::int; END IF;
  RETURN found;
END $$;
CREATE FUNCTION of_argument(a int, b int) RETURNS boolean STABLE STRICT BEGIN ATOMIC SELECT a = b OR b = 2; END;
CREATE FUNCTION opaque(a int) RETURNS boolean STABLE LANGUAGE plpgsql AS
  $$ DECLARE r boolean; BEGIN r := a = 1; RETURN r; END $$;
CREATE FUNCTION mine() RETURNS SETOF int STABLE SECURITY DEFINER LANGUAGE sql AS
  $$ SELECT s.k FROM public.members s WHERE s.u = {Y} $$;
CREATE FUNCTION mine_or_asked() RETURNS SETOF int STABLE SECURITY DEFINER LANGUAGE plpgsql AS $$
BEGIN
  IF {Y} <> '' THEN RETURN QUERY SELECT s.k FROM public.members s WHERE s.u = {Y}; RETURN; END IF;
  RETURN NEXT NULLIF({X}, '')::int;
END $$;
CREATE FUNCTION member(of int) RETURNS boolean STABLE SECURITY DEFINER LANGUAGE sql AS
  $$ SELECT EXISTS (SELECT 1 FROM public.members s WHERE s.k = of AND s.u = {Y}) $$;
CREATE TABLE model (id int, k_int int, k_text text, a int, f boolean, p_id int);
CREATE TABLE candidates AS TABLE model;
GRANT SELECT ON candidates TO random_app;
CREATE FUNCTION admitted(name text) RETURNS SETOF candidates LANGUAGE plpgsql AS $$
DECLARE candidate candidates;
BEGIN
  FOR candidate IN TABLE candidates LOOP
    BEGIN
      EXECUTE format('INSERT INTO %I SELECT ($1).*', name) USING candidate;
      RETURN NEXT candidate;
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END LOOP;
END $$;
"""

BOUND = st.sampled_from(
    [
        "k_int = of_sql()", f"k_int = NULLIF({X}, '')::int", f"k_int::text = {X}", f"k_text = {X}", f"k_text = NULLIF({X}, '')",
        "k_text = of_plpgsql()", f"k_int = (SELECT m.k FROM m WHERE m.u = NULLIF({X}, '') LIMIT 1)", "k_int = of_branches()",
        f"k_int IN (SELECT s.k FROM members s WHERE s.u = {Y})", "k_int IN (SELECT mine())", "member(k_int)",
        f"EXISTS (SELECT FROM members s WHERE s.k = k_int AND s.u = {Y})", "k_int IN (SELECT mine_or_asked())",
        f"k_int = ANY (ARRAY(SELECT s.k FROM members s WHERE s.u = {Y}))", "EXISTS (SELECT FROM parents p WHERE p.id = p_id)",
        f"EXISTS (SELECT FROM parents p JOIN members s ON s.k = p.k WHERE p.id = p_id AND s.u = {Y})",
        "p_id = (SELECT p.id FROM parents p WHERE p.k = of_sql() LIMIT 1)", f"{X} LIKE k_text", f"lower(k_text) = lower({X})",
        f"k_text = ANY (string_to_array({X}, ','))", f"k_int % 2 = NULLIF({X}, '')::int % 2", "EXISTS (SELECT FROM parents p)",
        f"EXISTS (SELECT FROM members s WHERE s.u = {Y})", f"(k_int, k_text) = (of_sql(), {Y})", "pg_has_role('random_group', 'USAGE')",
        f"k_int = NULLIF({X}, '')::int OR pg_has_role(current_user, 'random_other', 'MEMBER')", "pg_has_role('random_other', 'USAGE')",
        f"k_int = ANY (string_to_array({X}, ',')::int[])", f"upper(k_text) = upper({X})", f"k_text LIKE {X} || '%'",
        f"k_text = ANY (string_to_array(NULLIF({Y}, ''), ','))", f"k_text LIKE '1' AND k_text = {X}", f"{X} ~ k_text",
        f"NULLIF({X}, '')::jsonb ? k_text", "(k_int, a) IN ((of_sql(), 1), (of_sql(), 2))",
        f"k_text = json_build_object('k', {X}) ->> 'k'", f"k_text = (NULLIF({X}, '')::jsonb ->> 'k')",
    ]
)  # fmt: skip


@st.composite
def policies(draw: st.DrawFn) -> list[str]:
    """One to four policies; half of the permissive ones are bound to the context, or nothing would be proven."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        kind = "AS RESTRICTIVE" if number and draw(st.booleans()) else ""
        command = draw(st.sampled_from(["ALL", "ALL", "SELECT", "UPDATE", "DELETE", "INSERT"]))
        role = draw(st.sampled_from(["PUBLIC", "PUBLIC", "random_app", "random_group", "random_other"]))
        condition, check = draw(bools(1)), draw(st.one_of(st.none(), BOUND, bools(1)))
        if draw(st.integers(0, 3)):
            condition = draw(st.one_of(BOUND, st.tuples(BOUND, bools(1)).map("{0[0]} AND {0[1]}".format)))
        using = "" if command == "INSERT" else f"USING ({condition})"
        if command == "INSERT":
            check = check or condition
        elif command in ("SELECT", "DELETE"):
            check = None
        found.append(f"{kind} FOR {command} TO {role} {using}" + (f" WITH CHECK ({check})" if check else ""))
    return found


@dataclass(frozen=True)
class Subject:
    table: str
    key: str
    statements: list[str]
    constraint: str
    rows: list[tuple] = field(repr=False)
    """Columns of its rows, as ``World.reached`` gives them."""


class World:
    """Sessions in which a setting was never set, or was, over a few tables that differ in their policies."""

    def __init__(self, server: ScratchServer) -> None:
        server.create_database("random_policies")
        self.owner = server.connect("random_policies")
        self.owner.autocommit = True
        self.owner.execute(SETUP)
        with self.owner.cursor() as cursor:
            cursor.executemany("INSERT INTO candidates VALUES (0, %s, %s, %s, %s, %s)", ROWS)
        self.sessions: dict[tuple[bool, bool], psycopg.Connection] = {}
        for key in itertools.product((False, True), repeat=2):
            self.sessions[key] = server.connect("random_policies")
            self.sessions[key].autocommit = True

    def close(self) -> None:
        for connection in (self.owner, *self.sessions.values()):
            connection.close()

    def build(self, drawn: list[tuple[list[str], str, str]]) -> list[Subject]:
        """One table for each; what the server refuses is left out."""
        found = []
        for number, (statements, key, constraint) in enumerate(drawn):
            name = f"t{number}"
            table = sql.Identifier(name)
            self.owner.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
            try:
                with self.owner.transaction():
                    for text in (
                        "CREATE TABLE {} (LIKE model)", "ALTER TABLE {} ENABLE ROW LEVEL SECURITY",
                        "ALTER TABLE {} ADD FOREIGN KEY (p_id) REFERENCES parents", "GRANT ALL ON {} TO random_app",
                        f"INSERT INTO {{}} SELECT * FROM candidates WHERE ({CONSTRAINTS[constraint]}) IS NOT FALSE",
                        f"ALTER TABLE {{}} ADD {constraint}",
                    ):  # fmt: skip
                        self.owner.execute(sql.SQL(text).format(table))  # type: ignore[arg-type]
                    for place, text in enumerate(statements):
                        self.owner.execute(f"CREATE POLICY p{place} ON {name} {text}")  # type: ignore[arg-type]
            except psycopg.Error:
                continue
            rows = self.owner.execute(sql.SQL("SELECT k_int, k_text, p_id FROM {}").format(table)).fetchall()
            found.append(Subject(name, key, statements, constraint, rows))
        return found

    def session(self, x: str | None, y: str | None) -> psycopg.Connection:
        connection = self.sessions[x is not None, y is not None]
        for name, value in (("app.x", x), ("app.y", y)):
            if value is not None:
                connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        return connection

    def reached(self, on: Subject, command: str, x: str | None, y: str | None) -> list[tuple]:
        """Columns of the rows that the command reaches; an error reaches none.  INSERT is tried row by row."""
        connection, table = self.session(x, y), sql.Identifier(on.table)
        statements = {
            "SELECT": "SELECT k_int, k_text, p_id FROM {}",
            "DELETE": "DELETE FROM {}",
            "UPDATE": "UPDATE {} SET id = 1",
        }
        try:
            with connection.transaction(force_rollback=True):
                connection.execute("SET LOCAL ROLE random_app")
                if command == "INSERT":
                    return connection.execute("SELECT k_int, k_text, p_id FROM admitted(%s)", [on.table]).fetchall()
                cursor = connection.execute(sql.SQL(statements[command]).format(table))
                if command == "SELECT":
                    return cursor.fetchall()
                connection.execute("RESET ROLE")
                left = connection.execute(
                    sql.SQL("SELECT k_int, k_text, p_id FROM {} WHERE id = 0").format(table)
                ).fetchall()
        except psycopg.Error:
            return []
        return list((Counter(on.rows) - Counter(left)).elements())

    def moved(self, on: Subject, x: str | None, y: str | None) -> Iterator[tuple]:
        """Values that the key column of all rows reached may be changed to, as the columns of a row reached."""
        connection = self.session(x, y)
        place = {"k_int": 0, "k_text": 1, "parent": 2}[on.key]
        column = sql.Identifier(("k_int", "k_text", "p_id")[place])
        for value in (1, 2):
            shown = str(value) if on.key == "k_text" else value
            try:
                with connection.transaction(force_rollback=True):
                    connection.execute("SET LOCAL ROLE random_app")
                    update = sql.SQL("UPDATE {} SET {} = %s").format(sql.Identifier(on.table), column)
                    if connection.execute(update, [shown]).rowcount:
                        yield tuple(shown if i == place else None for i in range(3))
            except psycopg.Error:
                continue


@pytest.fixture(scope="module")
def world(prove_server: ScratchServer) -> Iterator[World]:
    world = World(prove_server)
    yield world
    world.close()


def keys(on: Subject, rows: list[tuple]) -> set[object]:
    place = {"k_int": 0, "k_text": 1, "parent": 2}[on.key]
    return {PARENTS.get(row[2]) if on.key == "parent" else row[place] for row in rows}


def violations(world: World, on: Subject, proof: Proof) -> Iterator[str]:
    members = "acting user" in proof.goal
    for x, y in SESSIONS:
        rows = world.reached(on, proof.command, x, y)
        if proof.command == "UPDATE":
            rows = [*rows, *world.moved(on, x, y)]
        found = keys(on, rows)
        together = members and any(found <= theirs for theirs in MEMBERS.values())
        if " lists;" in proof.goal:
            lists = [set((setting or "").split(",")) for setting in (x, y)]
            together = any({str(key) for key in found} <= theirs for theirs in lists)
        if (len(found) > 1 and not together) or None in found:
            yield f"{proof.command} with {x!r}, {y!r} reaches {found}"
        if found and (x, y) in ((None, None), ("", "")):
            yield f"{proof.command} without context reaches {found}"


def tenancy_of(catalog: Catalog, subjects: list[Subject]) -> Tenancy:
    names = {relation.name: relation for relation in catalog.relations}
    role = catalog.role_named("random_app")
    assert role is not None
    members, parents = names["members"].oid, names["parents"].oid
    found = {
        members: Classified(members, "membership", "test", "k"),
        parents: Classified(parents, "tenant", "test", "k"),
    }
    for on in subjects:
        oid = names[on.table].oid
        constraint = next(one.oid for one in catalog.constraints_of(oid) if one.referenced == parents)
        step = (Step(constraint, parents, ("p_id",), ("id",)),) if on.key == "parent" else ()
        found[oid] = Classified(oid, "tenant", "test", "k" if step else on.key, step)
    return Tenancy(found, principal_columns={members: ("u",)}, roles=(ApplicationRole(role.oid, role.name, "test"),))


def seen(world: World, on: Subject, proof: Proof, catalog: Catalog) -> str:
    """What the server makes of a refutation: ``seen``, ``hidden`` or ``error``."""
    witness = proof.witness
    assert witness is not None
    own = [dict(columns) for label, relation, columns in witness.rows if relation in (0, proof.relation)]
    others = [(relation, dict(columns)) for _, relation, columns in witness.rows if relation not in (0, proof.relation)]
    given = dict(witness.settings)
    x, y = given.get("app.x"), given.get("app.y")
    if witness.state == "empty":
        x = y = ""
    connection, table = world.session(x, y), sql.Identifier(on.table)
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("SET LOCAL session_replication_role = replica")
            for name in (on.table, "members", "parents", "m"):  # TRUNCATE would cost more than all the rest
                connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
            for relation, columns in others:
                insert(connection, catalog.relation(relation).name, columns)
            if proof.command != "INSERT":
                for columns in own:
                    insert(connection, on.table, {"id": "0", **columns})
            connection.execute("SET LOCAL ROLE random_app")
            if proof.command == "SELECT":
                return (
                    "seen"
                    if connection.execute(sql.SQL("SELECT FROM {}").format(table)).rowcount >= len(own)
                    else "hidden"
                )
            if proof.command == "DELETE":
                return (
                    "seen"
                    if connection.execute(sql.SQL("DELETE FROM {}").format(table)).rowcount >= len(own)
                    else "hidden"
                )
            if proof.command == "INSERT":
                for columns in own:
                    insert(connection, on.table, {"id": "0", **columns})
                return "seen"
    except psycopg.errors.InsufficientPrivilege:
        return "hidden" if proof.command == "INSERT" else "error"
    except psycopg.Error as error:
        logging.getLogger(__name__).info("error: %s %s %s", error, on.statements, proof)
        return "error"


def insert(connection: psycopg.Connection, table: str, columns: dict[str, str | None]) -> None:
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join(map(sql.Literal, columns.values())),
    )
    if table.startswith("t"):
        statement = sql.SQL(statement.as_string(connection).replace(" ON CONFLICT DO NOTHING", ""))
    connection.execute(statement)


@pytest.mark.slow
def test_verdicts_hold_on_the_server(world: World) -> None:
    told: Counter[str] = Counter()

    @settings(
        max_examples=POLICIES // 24 + 1,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(
            st.tuples(policies(), st.sampled_from(KEYS), st.sampled_from(list(CONSTRAINTS))),
            min_size=TABLES,
            max_size=TABLES,
        )
    )
    def run(drawn: list[tuple[list[str], str, str]]) -> None:
        subjects = world.build(drawn)
        catalog = load_catalog(world.owner)
        by_table = {one.table: one for one in subjects}
        told["policies"] += sum(len(one.statements) for one in subjects)
        for proof in prove(catalog, tenancy_of(catalog, subjects), visibility_of(catalog)):
            on = by_table.get(catalog.relation(proof.relation).name)
            if on is None:
                continue
            told[proof.verdict] += 1
            if proof.verdict == "proven" and "default deny" not in proof.reason:
                told[
                    "members" if "acting user" in proof.goal else "listed" if " lists;" in proof.goal else "bound"
                ] += 1
                told[on.key] += 1
                assert not list(violations(world, on, proof)), (on, proof)
            elif proof.verdict == "refuted" and proof.command != "UPDATE":  # of which the witness may be a new row
                outcome = seen(world, on, proof, catalog)
                told[outcome] += 1
                assert outcome != "hidden", (on, proof)

    run()
    logging.getLogger(__name__).info("%s", told)
    assert told["policies"] >= POLICIES * 0.8, told
    assert min(told["members"], told["listed"], told["parent"]) > 0 and told["bound"] > POLICIES / 20, told
    assert told["seen"] > 2 * told["error"], told


def test_a_text_that_is_invented_is_no_constant_of_the_policy(world: World) -> None:
    """A text that reads as 1 and is not the constant '1' is ' 1'."""
    policy = " FOR ALL TO random_app USING (k_int = NULLIF(current_setting('app.x', true), '')::int AND k_text <> '1')"
    truth = "AS RESTRICTIVE FOR DELETE TO PUBLIC USING ((current_setting('app.x', true))::boolean)"
    subjects = world.build([([policy, truth], "parent", "CHECK (true)")] * TABLES)
    catalog = load_catalog(world.owner)
    refuted = 0
    for proof in prove(catalog, tenancy_of(catalog, subjects), visibility_of(catalog)):
        on = next((one for one in subjects if one.table == catalog.relation(proof.relation).name), None)
        if on is not None and proof.verdict == "refuted" and proof.command == "DELETE":
            refuted += 1
            assert seen(world, on, proof, catalog) == "seen", proof
    assert refuted
