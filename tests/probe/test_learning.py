"""Where a long night of random workloads goes: by risk first, then to where it has learnt least."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from rlsaudit.catalog.snapshot import fingerprints
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.probe.attacks.learning import Learning, Neighbourhood, Visits
from rlsaudit.probe.attacks.neighbourhoods import neighbourhoods
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.world import World

PLAIN = tuple(Neighbourhood("app", f"t{number}", (number,), "a") for number in range(6))


def night(learning: Learning, rounds: int, gives=lambda name, visit: 0, takes=lambda name: 1.0) -> list[str]:
    """The relations that a night goes to; ``gives`` says how many new outcomes each visit has."""
    went, visits = [], Counter[str]()
    for _ in range(rounds):
        one = learning.next("app")
        assert one is not None
        learning.visited(one, 150, takes(one.relation), gives(one.relation, visits[one.relation]))
        visits[one.relation] += 1
        went.append(one.relation)
    return went


def test_the_first_night_goes_everywhere_what_is_risky_first() -> None:
    learning = Learning()
    learning.offer(
        replace(one, unproven=one.relation == "t4", door=one.relation in ("t2", "t4", "t5")) for one in PLAIN
    )
    assert night(learning, 6) == ["t4", "t2", "t5", "t0", "t1", "t3"]
    assert learning.next("another") is None


def test_a_later_night_begins_with_what_is_new_unproven_changed_and_behind_doors() -> None:
    known = {("app", f"t{number}"): Visits(3, 450, 3.0, 0.0, "a", {"SELECT 2"}) for number in range(6) if number != 5}
    known["app", "t0"] = Visits(1, 150, 1.0, 0.0, "a")
    learning = Learning(known)
    learning.offer(
        replace(
            one,
            fingerprint="b" if one.relation == "t1" else "a",
            unproven=one.relation == "t2",
            door=one.relation == "t3",
        )
        for one in PLAIN
    )
    # t5 is new, t2 not proven, t1 changed, t3 behind a door; of the others the less known comes first.
    went = night(learning, 30)
    assert went[:4] == ["t5", "t2", "t1", "t3"]
    assert went.index("t0") < went.index("t4")
    assert learning.known["app", "t1"].rounds == went.count("t1"), "what was learnt of another definition still counts"


def test_time_goes_where_rounds_still_give_something() -> None:
    learning = Learning()
    learning.offer(PLAIN)
    went = Counter(night(learning, 60, gives=lambda name, visit: 4 if name == "t3" else 0))
    assert went["t3"] > 40
    assert min(went.values()) >= 1
    learning = Learning()
    learning.offer(PLAIN)
    went = Counter(night(learning, 60, gives=lambda name, visit: 8 if visit == 0 else 0))
    assert set(went.values()) == {10}, "where nothing is new any more, all are visited alike"


def test_what_is_slow_gets_as_much_time_and_not_as_many_rounds() -> None:
    learning = Learning()
    learning.offer(PLAIN)
    went = Counter(night(learning, 120, takes=lambda name: 10.0 if name == "t0" else 1.0))
    assert 1 < went["t0"] < 0.2 * min(count for name, count in went.items() if name != "t0")


def test_what_is_not_proven_gets_more_than_what_is() -> None:
    learning = Learning()
    learning.offer(replace(one, unproven=one.relation == "t3") for one in PLAIN)
    went = Counter(night(learning, 120))
    assert went["t3"] > 1.5 * max(count for name, count in went.items() if name != "t3")


def test_the_next_night_begins_where_this_one_learnt_least() -> None:
    first = Learning()
    first.offer(PLAIN)
    night(
        first,
        6 + 3,
        gives=lambda name, visit: 6 if name == "t2" else 0,
        takes=lambda name: 9.0 if name == "t4" else 1.0,
    )
    second = Learning(first.learnt())
    second.offer(PLAIN)
    assert second.next("app").relation == "t2", "its last round still gave something"
    first.known["app", "t2"].fresh = 0.0
    second = Learning(first.learnt())
    second.offer(PLAIN)
    assert second.next("app").relation == "t0", "visited once, and quick"


def test_an_outcome_is_new_once_in_all_nights() -> None:
    learning = Learning()
    learning.offer(PLAIN)
    assert learning.note(("app", "t1"), "SELECT 2")
    assert not learning.note(("app", "t1"), "SELECT 2")
    assert learning.note(("app", "t1"), "UPDATE 42501")
    night(learning, 1)
    assert not Learning(learning.learnt()).note(("app", "t1"), "SELECT 2")


def test_the_report_says_where_the_night_went() -> None:
    learning = Learning({("app", "t1"): Visits(2, 300, 2.0, 0.0, "a")})
    assert learning.told == ""
    learning.offer(PLAIN)
    assert learning.told == ""
    night(learning, 4)
    assert learning.told == (
        "Random workloads: 600 programs in 4 rounds over 4 of 6 neighbourhoods of tables; 1 were known from earlier nights; "
        "fewest rounds so far: t5 (0), t0 (1), t2 (1)."
    )


SCHEMA = """
CREATE ROLE l_app LOGIN;
CREATE TABLE tenants (id int PRIMARY KEY, name text);
CREATE TABLE projects (tenant_id int REFERENCES tenants, id int PRIMARY KEY);
CREATE TABLE tasks (tenant_id int REFERENCES tenants, id int PRIMARY KEY, project int REFERENCES projects);
CREATE TABLE hidden (tenant_id int REFERENCES tenants, id int PRIMARY KEY);
CREATE TABLE logged (tenant_id int, at date) PARTITION BY RANGE (at);
CREATE TABLE logged_25 PARTITION OF logged FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE VIEW open_tasks AS SELECT * FROM tasks;
CREATE TABLE counted (tenant_id int, n int);
CREATE FUNCTION total() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT sum(n) FROM counted';
CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1';
ALTER TABLE projects ENABLE ROW LEVEL SECURITY; ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON projects USING (tenant_id = mine()); CREATE POLICY own ON tasks USING (tenant_id = 1);
GRANT SELECT ON tenants, projects, tasks, logged, logged_25, open_tasks, counted TO l_app;
"""


def _near(loaded, unproven=()) -> dict[str, Neighbourhood]:
    world = World(tenants=(), rows={}, spare={}, marks={}, homes={}, baseline={})
    arena = Arena(loaded.catalog, loaded.tenancy, Visibility(loaded.catalog), world)
    role = next(role for role in loaded.catalog.roles if role.name == "l_app")
    return {one.relation: one for one in neighbourhoods(arena, role.oid, role.name, unproven)}


def test_neighbours_are_what_refers_reads_and_partitions(schema) -> None:
    loaded = schema(SCHEMA)
    near = _near(loaded, {(loaded.oid("public.tasks"), "DELETE")})

    def names(relation: str) -> list[str]:
        return [loaded.catalog.relation(oid).name for oid in near[f"public.{relation}"].members]

    assert "public.hidden" not in near, "the role may do nothing there"
    assert names("projects") == ["projects", "tenants", "tasks"]
    assert set(names("tasks")) == {"tasks", "tenants", "projects", "open_tasks"}
    assert names("open_tasks") == ["open_tasks", "tasks"]
    assert names("logged_25") == ["logged_25", "logged"]
    assert names("counted") == ["counted"]
    assert {one.relation for one in near.values() if one.unproven} == {"public.tasks"}
    assert {one.relation for one in near.values() if one.door} == {
        "public.open_tasks",
        "public.tasks",
        "public.counted",
    }


def test_a_hub_has_few_neighbours_and_each_of_them_has_the_hub(schema) -> None:
    more = "".join(
        f"CREATE TABLE r{n} (tenant_id int REFERENCES tenants); GRANT SELECT ON r{n} TO l_app;" for n in range(30)
    )
    loaded = schema(SCHEMA + more)
    near = _near(loaded)
    assert len(near["public.tenants"].members) < 10
    hub = loaded.oid("public.tenants")
    assert all(hub in near[f"public.r{number}"].members for number in range(30))


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ("ALTER POLICY own ON tasks USING (tenant_id = 2)", {"public.tasks"}),
        ("ALTER TABLE tasks DISABLE ROW LEVEL SECURITY", {"public.tasks"}),
        ("GRANT DELETE ON tenants TO l_app", {"public.tenants"}),
        ("CREATE OR REPLACE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 2'", {"public.projects"}),
        ("INSERT INTO tenants VALUES (1, 'one')", set()),
    ],
)
def test_what_changed_is_told_by_definitions(schema, change, changed) -> None:
    before = schema(SCHEMA)
    after = schema(f"{SCHEMA.replace('CREATE ROLE l_app LOGIN;', '')} {change};")
    marks = [
        {one.catalog.relation(oid).qualified: mark for oid, mark in fingerprints(one.catalog).items()}
        for one in (before, after)
    ]
    assert {name for name in marks[0] if marks[0][name] != marks[1][name]} == changed
