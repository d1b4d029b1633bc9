"""Random policies on a live server: what is proven must hold for every row and session of a small world."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from random import Random

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.prove import smt
from rlsaudit.prove.encode import Encoder
from rlsaudit.prove.goals import outcome
from rlsaudit.prove.prove import combined, prove
from rlsaudit.prove.values import Row, Value, text_number
from rlsaudit.source.server import ScratchServer
from rlsaudit.tenancy.model import ApplicationRole, Classified, Tenancy

EXAMPLES = int(os.environ.get("RLSAUDIT_SOUNDNESS_EXAMPLES", "60"))
"""Raise it after a change of the encoding; 1,000 take about two minutes."""

VALUES = ("", "1", "2")
ROWS = list(itertools.product((None, 1, 2), (None, "", "1", "2"), (None, 1, 2), (None, True, False)))
SESSIONS = [(x, y) for x in (None, *VALUES) for y in (None, *VALUES)]
SHOW = "SELECT k_int, k_text FROM t"

X, Y = "current_setting('app.x', true)", "current_setting('app.y', true)"
SETUP = f"""
CREATE ROLE sound_app;
CREATE TABLE m (u text, k int);
INSERT INTO m SELECT u, k FROM unnest(ARRAY['', '1', '2', NULL]) u, generate_series(1, 2) k
  WHERE u IS NULL OR u <> k::text;
GRANT SELECT ON m TO sound_app;
CREATE FUNCTION of_sql() RETURNS int STABLE LANGUAGE sql AS $$ SELECT NULLIF({X}, '')::int $$;
CREATE FUNCTION of_plpgsql() RETURNS text STABLE LANGUAGE plpgsql AS
  $$ BEGIN RETURN NULLIF({Y}, ''); END $$;
CREATE FUNCTION of_argument(a int, b int) RETURNS boolean STABLE STRICT
  BEGIN ATOMIC SELECT a = b OR b = 2; END;
CREATE FUNCTION opaque(a int) RETURNS boolean STABLE LANGUAGE plpgsql AS
  $$ DECLARE r boolean; BEGIN r := a = 1; RETURN r; END $$;
CREATE TABLE t (id int, k_int int, k_text text, a int, f boolean);
ALTER TABLE t ENABLE ROW LEVEL SECURITY;
GRANT ALL ON t TO sound_app;
CREATE TABLE candidates AS TABLE t;
GRANT SELECT ON candidates TO sound_app;
CREATE FUNCTION admitted() RETURNS SETOF candidates LANGUAGE plpgsql AS $$
DECLARE candidate candidates;
BEGIN
  FOR candidate IN TABLE candidates LOOP
    BEGIN
      INSERT INTO t SELECT candidate.*;
      RETURN NEXT candidate;
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END LOOP;
END $$;
CREATE FUNCTION evaluated(condition text) RETURNS TABLE (tried candidates, result text) LANGUAGE plpgsql AS $$
BEGIN
  FOR tried IN TABLE candidates LOOP
    BEGIN
      EXECUTE 'SELECT (' || condition || ')::text FROM (SELECT ($1).*) t' INTO result USING tried;
    EXCEPTION WHEN OTHERS THEN result := 'error';
    END;
    RETURN NEXT;
  END LOOP;
END $$;
"""


def texts(depth: int) -> st.SearchStrategy[str]:
    leaves = st.sampled_from([X, Y, "current_setting('app.x')", "k_text", "of_plpgsql()", "''::text", "'1'::text"])
    if depth == 0:
        return leaves
    t, i, b = texts(depth - 1), ints(depth - 1), bools(depth - 1)
    return st.one_of(
        leaves,
        st.tuples(t, t).map("NULLIF({0[0]}, {0[1]})".format),
        st.tuples(t, t).map("COALESCE({0[0]}, {0[1]})".format),
        t.map("NULLIF({}, '')".format),
        i.map("({})::text".format),
        t.map("(SELECT {})".format),
        st.tuples(b, t, t).map("CASE WHEN {0[0]} THEN {0[1]} ELSE {0[2]} END".format),
    )


def ints(depth: int) -> st.SearchStrategy[str]:
    leaves = st.sampled_from(["k_int", "a", "of_sql()", "1", "NULL::int", f"NULLIF({X}, '')::int", f"({Y})::int"])
    if depth == 0:
        return leaves
    t, i, b = texts(depth - 1), ints(depth - 1), bools(depth - 1)
    return st.one_of(
        leaves,
        t.map("({})::int".format),
        st.tuples(i, i).map("COALESCE({0[0]}, {0[1]})".format),
        st.tuples(i, i).map("NULLIF({0[0]}, {0[1]})".format),
        st.tuples(b, i).map("CASE WHEN {0[0]} THEN {0[1]} END".format),
        i.map("({})::bigint::int".format),
        t.map("(SELECT min(m.k) FROM m WHERE m.u = {})".format),
        t.map("(SELECT m.k FROM m WHERE m.u = {} LIMIT 1)".format),
    )


def bools(depth: int) -> st.SearchStrategy[str]:
    leaves = st.sampled_from(
        [
            "f",
            "true",
            "false",
            f"k_text = {X}",
            "k_int = of_sql()",
            f"k_int::text = {Y}",
            "a = k_int",
            f"{X} IS NULL",
        ]
    )
    if depth == 0:
        return leaves
    t, i, b = texts(depth - 1), ints(depth - 1), bools(depth - 1)
    operator = st.sampled_from(["=", "<>", "IS DISTINCT FROM", "IS NOT DISTINCT FROM", "<", ">="])
    return st.one_of(
        leaves,
        st.tuples(t, operator, t).map("({0[0]} {0[1]} {0[2]})".format),
        st.tuples(i, operator, i).map("({0[0]} {0[1]} {0[2]})".format),
        st.tuples(b, b).map("({0[0]} AND {0[1]})".format),
        st.tuples(b, b).map("({0[0]} OR {0[1]})".format),
        b.map("(NOT {})".format),
        st.tuples(b, st.sampled_from(["TRUE", "NOT TRUE", "FALSE", "NOT FALSE", "UNKNOWN", "NOT UNKNOWN"])).map(
            "({0[0]} IS {0[1]})".format
        ),
        st.tuples(st.one_of(t, i), st.sampled_from(["NULL", "NOT NULL"])).map("({0[0]} IS {0[1]})".format),
        st.tuples(i, i, i, st.sampled_from(["IN", "NOT IN"])).map("({0[0]} {0[3]} ({0[1]}, {0[2]}))".format),
        st.tuples(b, b, b).map("CASE WHEN {0[0]} THEN {0[1]} ELSE {0[2]} END".format),
        st.tuples(b, b).map("COALESCE({0[0]}, {0[1]})".format),
        st.tuples(i, i).map("of_argument({0[0]}, {0[1]})".format),
        i.map("opaque({})".format),
        st.tuples(i, t).map("({0[0]} IN (SELECT m.k FROM m WHERE m.u = {0[1]}))".format),
        st.tuples(i, b).map("EXISTS (SELECT FROM m WHERE m.k = {0[0]} AND {0[1]})".format),
        t.map("({})::boolean".format),
    )


BOUND = st.sampled_from(
    [
        "k_int = of_sql()",
        f"k_int = NULLIF({X}, '')::int",
        f"k_int::text = {X}",
        f"k_text = {X}",
        f"k_text = NULLIF({X}, '')",
        "k_text = of_plpgsql()",
        f"k_int = (SELECT m.k FROM m WHERE m.u = NULLIF({X}, '') LIMIT 1)",
    ]
)


@st.composite
def policies(draw: st.DrawFn) -> list[str]:
    """One to three policies; half of the permissive ones are bound to the context, or nothing would be
    proven."""
    found = []
    for number in range(draw(st.integers(1, 3))):
        kind = "AS RESTRICTIVE" if number and draw(st.booleans()) else ""
        command = draw(st.sampled_from(["ALL", "ALL", "SELECT", "UPDATE", "DELETE", "INSERT"]))
        condition, check = draw(bools(2)), draw(st.one_of(st.none(), BOUND, bools(1)))
        if draw(st.booleans()):
            condition = f"{draw(BOUND)} {draw(st.sampled_from(['AND', 'AND', 'OR']))} {condition}"
        using = "" if command == "INSERT" else f"USING ({condition})"
        if command == "INSERT":
            check = check or condition
        elif command in ("SELECT", "DELETE"):
            check = None
        found.append(
            f"CREATE POLICY p{number} ON t {kind} FOR {command} {using}" + (f" WITH CHECK ({check})" if check else "")
        )
    return found


class World:
    """Connections in which a setting was never set, or was, and what a session of the application role
    reaches."""

    def __init__(self, server: ScratchServer) -> None:
        server.create_database("soundness")
        self.owner = server.connect("soundness")
        self.owner.autocommit = True
        self.owner.execute(SETUP)
        with self.owner.cursor() as cursor:
            for table in ("t", "candidates"):
                insert = sql.SQL("INSERT INTO {} VALUES (0, %s, %s, %s, %s)").format(sql.Identifier(table))
                cursor.executemany(insert, ROWS)
        self.sessions: dict[tuple[bool, bool], psycopg.Connection] = {}
        for key in itertools.product((False, True), repeat=2):
            connection = server.connect("soundness")
            connection.autocommit = True
            self.sessions[key] = connection

    def close(self) -> None:
        for connection in (self.owner, *self.sessions.values()):
            connection.close()

    def replace_policies(self, statements: list[str]) -> None:
        for name in range(3):
            self.owner.execute(sql.SQL("DROP POLICY IF EXISTS {} ON t").format(sql.Identifier(f"p{name}")))
        for statement in statements:
            self.owner.execute(statement)

    def session(self, x: str | None, y: str | None) -> psycopg.Connection:
        connection = self.sessions[x is not None, y is not None]
        for name, value in (("app.x", x), ("app.y", y)):
            if value is not None:
                connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        return connection

    def reached(self, command: str, x: str | None, y: str | None) -> list[tuple]:
        """Keys of the rows that the command reaches; an error reaches none.  INSERT is tried row by row."""
        connection = self.session(x, y)
        if command == "INSERT":
            return self.admitted(connection)
        try:
            with connection.transaction(force_rollback=True):
                connection.execute("SET LOCAL ROLE sound_app")
                if command == "SELECT":
                    return connection.execute(SHOW).fetchall()
                connection.execute("DELETE FROM t" if command == "DELETE" else "UPDATE t SET id = 1")
                connection.execute("RESET ROLE")
                left = connection.execute("SELECT k_int, k_text FROM t WHERE id = 0").fetchall()
        except psycopg.Error:
            return []
        everything = Counter((k_int, k_text) for k_int, k_text, _, _ in ROWS)
        return list((everything - Counter(left)).elements())

    def admitted(self, connection: psycopg.Connection) -> list[tuple]:
        with connection.transaction(force_rollback=True):
            connection.execute("SET LOCAL ROLE sound_app")
            return connection.execute("SELECT k_int, k_text FROM admitted()").fetchall()

    def evaluate(self, condition: str, x: str | None, y: str | None) -> list[tuple]:
        """Each row's columns and what the condition gives for it: true, false, None or error."""
        query = "SELECT (tried).k_int, (tried).k_text, (tried).a, (tried).f, result FROM evaluated(%s)"
        return self.session(x, y).execute(query, [condition]).fetchall()


@pytest.fixture(scope="module")
def world(prove_server: ScratchServer) -> Iterator[World]:
    world = World(prove_server)
    yield world
    world.close()


def violations(world: World, command: str, column: int) -> Iterator[str]:
    for x, y in SESSIONS:
        keys = {row[column] for row in world.reached(command, x, y)}
        if len(keys) > 1 or None in keys:
            yield f"{command} with {x!r}, {y!r} reaches {keys}"
        if keys and (x, y) in ((None, None), ("", "")):
            yield f"{command} without context reaches {keys}"


def test_proofs_hold_on_the_server(world: World) -> None:
    verdicts: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(policies(), st.sampled_from(["k_int", "k_text"]))
    def run(statements: list[str], key: str) -> None:
        try:
            world.replace_policies(statements)
        except psycopg.Error:
            return
        catalog = load_catalog(world.owner)
        relation = next(r for r in catalog.relations if r.name == "t")
        role = catalog.role_named("sound_app")
        assert role is not None
        tenancy = Tenancy(
            {relation.oid: Classified(relation.oid, "tenant", "test", key)},
            roles=(ApplicationRole(role.oid, role.name, "test"),),
        )
        visibility = Visibility(catalog)
        for proof in prove(catalog, tenancy, visibility):
            verdicts[proof.verdict] += 1
            if proof.verdict == "proven" and proof.reason != "no policy applies: default deny":
                verdicts["bound"] += 1
                assert not list(violations(world, proof.command, 0 if key == "k_int" else 1)), (
                    statements,
                    proof,
                )
        predicate = combined(catalog, visibility.policies(role.oid, relation, "SELECT"), "old")
        if predicate is not None and outcome(predicate) <= {False, None, "error"}:
            assert not any(world.reached("SELECT", x, y) for x, y in SESSIONS), statements

    run()
    assert verdicts["bound"] > EXAMPLES / 6 and verdicts["refuted"] > EXAMPLES / 6, verdicts


def possible(predicate: e.Expression, row: tuple, x: str | None, y: str | None) -> bool:
    """Whether the encoding allows the result that the server gave for this row and session."""
    *columns, result = row
    encoder = Encoder()
    value = encoder.condition(predicate, Row("row"))
    terms = [{"true": value.is_true, "false": value.is_false, None: value.is_null}[result]]
    for (label, _, number), column in encoder.columns.items():
        if label == "row":
            terms += fixed(column, columns[number - 2])
    for name, content in (("app.x", x), ("app.y", y)):
        null, text = smt.truth(f"setting {name} is null"), smt.number(f"setting {name}")
        terms += fixed(Value(smt.FALSE, null, text, "text"), content)
    return smt.solve([*terms, *encoder.facts()]).holds is not False


def fixed(value: Value, content: str | int | bool | None) -> list[smt.Term]:
    if content is None:
        return [value.null]
    literal = smt.literal(text_number(content) if isinstance(content, str) else content)
    return [smt.negation(value.null), smt.equal(value.value, literal)]


@pytest.mark.parametrize(
    "condition",
    [
        "COALESCE(k_int, a) = 1",
        "COALESCE(f, a = 1)",
        f"COALESCE(k_text, {X}) = '1'",
        "NULLIF(k_int, a) IS NULL",
        f"NULLIF(k_text, {X}) = '2'",
        "a IS DISTINCT FROM k_int",
        "a IS NOT DISTINCT FROM k_int",
        "NULLIF(k_int, k_int) IS DISTINCT FROM a",
        "CASE WHEN f AND a = 1 THEN false ELSE true END",
        "CASE WHEN f THEN a = 1 WHEN a = 2 THEN k_int = 2 END",
        "CASE k_int WHEN a THEN f WHEN 1 THEN NOT f ELSE true END",
        "CASE WHEN a <> 1 THEN k_int::text END = '2'",
        "of_argument(k_int, a)",
        "of_argument(a, NULL) IS NULL",
        f"k_int = ({X})::int",
        f"k_int::text = {X} OR f",
        "f IS NOT TRUE AND a >= 2",
        "f IS UNKNOWN OR NOT f",
        "k_int NOT IN (a, 1)",
        "k_int IN (SELECT m.k FROM m WHERE m.u = k_text)",
        "EXISTS (SELECT FROM m WHERE m.k = k_int AND m.u = k_text)",
        f"k_int = (SELECT m.k FROM m WHERE m.u = {X} LIMIT 1)",
        "(SELECT a WHERE f) = k_int",
        "k_text::boolean",
    ],
)
def test_each_construct_gives_what_the_server_gives(world: World, condition: str) -> None:
    world.replace_policies([f"CREATE POLICY p0 ON t USING ({condition})"])
    catalog = load_catalog(world.owner)
    predicate = policy_predicate(catalog, catalog.policies[0], "using")
    assert predicate is not None
    for x, y in ((None, None), ("", "1"), ("2", "1")):
        for row in world.evaluate(condition, x, y)[:: 5 if x else 11]:
            assert row[-1] == "error" or possible(predicate, row, x, y), (row, x, y)


def test_the_encoding_allows_what_the_server_does(world: World) -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(bools(2), st.randoms(use_true_random=False))
    def run(condition: str, random: Random) -> None:
        try:
            world.replace_policies([f"CREATE POLICY p0 ON t USING ({condition})"])
        except psycopg.Error:
            return
        catalog = load_catalog(world.owner)
        predicate = policy_predicate(catalog, catalog.policies[0], "using")
        assert predicate is not None
        for x, y in random.sample(SESSIONS, 3):
            for row in random.sample(world.evaluate(condition, x, y), 5):
                if row[-1] != "error":  # errors depend on the order of evaluation
                    seen[str(row[-1])] += 1
                    assert possible(predicate, row, x, y), (condition, row, x, y)

    run()
    assert set(seen) == {"true", "false", "None"}, seen
