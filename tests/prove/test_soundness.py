"""The encoding of conditions against a live server: what the server gives is among what the encoding allows."""

from __future__ import annotations

import itertools
import os
import runpy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.prove import smt, solver
from rlsaudit.prove.encode import Encoder
from rlsaudit.prove.values import Row, Value, text_number
from rlsaudit.source.server import ScratchServer

EXAMPLES = int(os.environ.get("RLSAUDIT_SOUNDNESS_EXAMPLES", "60"))
"""Raise it after a change of the encoding; 1,000 take about two minutes."""

VALUES = ("", "1", "2", "1,2")
ROWS = list(itertools.product((None, 1, 2), (None, "", "1", "2", "A"), (None, 1, 2), (None, True, False)))
SESSIONS = [(x, y) for x in (None, *VALUES) for y in (None, *VALUES)]

GRAMMAR = runpy.run_path(str(Path(__file__).with_name("grammar.py")))
X, Y, bools = GRAMMAR["X"], GRAMMAR["Y"], GRAMMAR["bools"]
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


class World:
    """Connections in which a setting was never set, or was."""

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

    def evaluate(self, condition: str, x: str | None, y: str | None) -> list[tuple]:
        """Each row's columns and what the condition gives for it: true, false, None or error."""
        query = "SELECT (tried).k_int, (tried).k_text, (tried).a, (tried).f, result FROM evaluated(%s)"
        return self.session(x, y).execute(query, [condition]).fetchall()


@pytest.fixture(scope="module")
def world(prove_server: ScratchServer) -> Iterator[World]:
    world = World(prove_server)
    yield world
    world.close()


def possible(predicate: e.Expression, row: tuple, x: str | None, y: str | None) -> bool:
    """Whether the encoding allows the result that the server gave for this row and session."""
    *columns, result = row
    encoder = Encoder()
    value = encoder.condition(predicate, Row("row"))
    terms = [{"true": value.is_true, "false": value.is_false, None: value.is_null}[result]]
    for (label, number), column in encoder.columns.items():
        if label == "row":
            terms += fixed(column, columns[number - 2])
    for name, content in (("app.x", x), ("app.y", y)):
        null, text = smt.truth(f"setting {name} is null"), smt.number(f"setting {name}")
        terms += fixed(Value(smt.FALSE, null, text, "text"), content)
    return solver.solve([*terms, *encoder.facts()], solver.Clock()).holds is not False


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
        "k_int = ANY ('{1,NULL}')",
        "k_text <> ALL ('{1,2}')",
        "k_int IN (SELECT m.k FROM m WHERE m.u = k_text)",
        "EXISTS (SELECT FROM m WHERE m.k = k_int AND m.u = k_text)",
        f"k_int = (SELECT m.k FROM m WHERE m.u = {X} LIMIT 1)",
        "(SELECT a WHERE f) = k_int",
        "k_text::boolean",
        "k_text LIKE '1'",
        "k_text NOT LIKE '2' OR k_text LIKE '%1'",
        f"lower(k_text) = lower({X})",
        "upper(k_text) || k_text = 'AA'",
        "k_int % 2 = a % 2",
        f"k_text = ANY (string_to_array({X}, ','))",
        f"k_int = ANY (string_to_array({X}, ',')::int[]) IS NULL",
        f"NULLIF({X}, '')::jsonb ? k_text",
        "(k_int, k_text) = (a, '1')",
        "(k_int, k_text) IN ((1, '1'), (a, '2'))",
        "(k_int, k_text) < (a, '2')",
        "split_part(k_text, ',', 1) = '1'",
        "k_text ~ '^[12]'",
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
