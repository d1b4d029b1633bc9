"""An application's own statements: what each one leaks is found, and the same statement done right is held."""

from __future__ import annotations

import pytest

from rlsaudit.own import OwnStatement
from rlsaudit.probe.run import probe
from rlsaudit.source.statements import numbered

SENT_TENANT = (
    "WITH acted AS MATERIALIZED (SELECT set_config('app.tenant_id', $1, true)) "
    "SELECT notes.* FROM acted, LATERAL (SELECT * FROM shop.notes WHERE acted IS NOT NULL) AS notes"
)
LEAKY = {
    "the tenant is a parameter": (SENT_TENANT, "read"),
    "a write for the tenant of a parameter": (
        "WITH acted AS MATERIALIZED (SELECT set_config('app.tenant_id', :tenant_id, true) AS is_) INSERT INTO shop.notes "
        "SELECT :tenant_id::integer, 123456, 'a', 'b' FROM acted",
        "forge",
    ),
    "a number for the tenant of a parameter": (
        SENT_TENANT.replace("notes.*", "count(*)"),
        "interference",
    ),
}
HELD = {
    "all": "select * from shop.notes -- without a condition",
    "by key": "SELECT body FROM shop.notes WHERE tenant_id = $1 AND note_id = $2",
    "written": "UPDATE shop.notes SET body = :body WHERE note_id = :note_id",
    "inserted": "INSERT INTO shop.notes (tenant_id, note_id, author, body) VALUES (%s, %s, %s, %s) RETURNING *",
    "with": "WITH mine AS (SELECT * FROM shop.notes) SELECT count(*), max(body) FROM mine WHERE author <> $1",
}


def run(loaded, *statements: OwnStatement):
    return probe(
        loaded.server, loaded.name, loaded.catalog, loaded.tenancy, seed=0, budget=0.0,
        progress=lambda what, done, of: None, own=statements,
    )  # fmt: skip


def states(result):
    return {cell.relation: (cell.state, cell.reason) for cell in result.cells if cell.command == "EXECUTE"}


@pytest.mark.parametrize("kind", LEAKY)
def test_a_statement_that_crosses_is_found_and_replays(schema, base, kind) -> None:
    text, broken = LEAKY[kind]
    result = run(schema(base + "RESET ROLE;"), numbered("queries.sql:1", text), numbered("fine", HELD["all"]))
    own = [(f.object, f.property, f.confirmed) for f in result.findings if f.object == "queries.sql:1"]
    assert own == [("queries.sql:1", broken, True)]
    assert states(result)["queries.sql:1"][0] == "leak"
    assert states(result)["fine"][0] == "held"


def test_statements_that_cross_nowhere_are_held(schema, base) -> None:
    result = run(schema(base + "RESET ROLE;"), *(numbered(name, text) for name, text in HELD.items()))
    assert {name: state for name, (state, _) in states(result).items()} == dict.fromkeys(HELD, "held")
    assert not result.findings


def test_parameters_of_every_type_get_values_of_rows(schema, base) -> None:
    """Types of any schema and name, and operators of any spelling: without values nothing foreign is asked for."""
    loaded = schema("SET search_path = shop, public;" + base + "RESET ROLE; CREATE TYPE shop.mood AS ENUM ('happy', 'sad');"
                    """CREATE TYPE shop."Odd, Type" AS ENUM ('x', 'y');
                    ALTER TABLE shop.notes ADD mood shop.mood, ADD odd shop."Odd, Type", ADD data jsonb,
                    ADD tags text[]; ALTER ROLE q_app SET search_path = shop;""")  # fmt: skip
    texts = {
        "enum": "SELECT body FROM notes WHERE mood = $1",
        "odd": "SELECT body FROM notes WHERE odd = $1",
        "jsonb": "SELECT body FROM notes WHERE data @> $1",
    }
    found = states(run(loaded, *(numbered(name, text) for name, text in texts.items())))
    assert {name: state for name, (state, _) in found.items()} == dict.fromkeys(texts, "held"), found


def test_what_could_not_be_run_is_not_covered(schema, base) -> None:
    loaded = schema(base + "CREATE VIEW shop.everything AS SELECT * FROM shop.notes; RESET ROLE;"
                    "ALTER VIEW shop.everything OWNER TO postgres; GRANT SELECT ON shop.everything TO q_app;"
                    "CREATE TABLE shop.plans (tenant_id integer);")  # fmt: skip
    texts = {
        "broken": "SELECT nothing FROM nowhere",
        "idle": "SELECT * FROM shop.notes WHERE note_id = -1",
        "nothing counted": "SELECT count(*), max(body), bool_or(true) FROM shop.notes WHERE note_id = -1",
        "refused by both": "INSERT INTO shop.notes (tenant_id, note_id, author) VALUES ($1, $2, $3)",
        "slow": "SELECT pg_sleep(10), * FROM shop.notes WHERE note_id = $1",
        "denied": "SELECT * FROM shop.plans",
        "through a leak": "SELECT sum(note_id) FROM shop.everything",
    }
    found = states(run(loaded, *(numbered(name, text) for name, text in texts.items())))
    assert {name: state for name, (state, _) in found.items()} == {
        "broken": "not covered", "idle": "not covered", "nothing counted": "not covered", "refused by both": "not covered",
        "slow": "not covered", "denied": "no privilege", "through a leak": "not covered",
    }  # fmt: skip
    assert 'relation "nowhere" does not exist' in found["broken"][1]
    assert "neither returned a row nor changed one" in found["idle"][1]
    assert "nothing but 0, false, empty text and NULL" in found["nothing counted"][1]
    assert "null value in column" in found["refused by both"][1]
    assert "ran into the timeout" in found["slow"][1]
    assert "shop.everything, which leaks by itself" in found["through a leak"][1]
