"""Which leaks become findings."""

from __future__ import annotations

from dataclasses import replace

from rlsaudit.catalog.cluster import Role, Server
from rlsaudit.catalog.grants import Grant
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.ground.leak import Leak, Visit, shortest
from rlsaudit.probe.judging.findings import as_finding
from rlsaudit.probe.judging.telling import worth_telling

CATALOG = Catalog(
    Server("18", 180000, "1", "d", "postgres", True, True, False, ""),
    relations=(
        Relation(1, "s", "a", "table", 10),
        Relation(2, "s", "b", "table", 10),
        Relation(3, "s", "root", "partitioned table", 10),
        Relation(4, "s", "p1", "table", 10, parents=(3,), is_partition=True),
        Relation(5, "s", "p2", "table", 10, parents=(3,), is_partition=True),
    ),
)
LEAK = Leak("read", 1, "SELECT", "app", "1", "11", "rows", (Visit(("SELECT a FROM a",), commit=False),), ())


def told(*leaks: Leak):
    return [(one.leak.breaks, one.leak.relation, one.commands, one.siblings) for one in worth_telling(CATALOG, leaks)]


def test_commands_of_one_door_are_one_finding() -> None:
    write = replace(LEAK, breaks="write")
    found = told(LEAK, replace(write, command="DELETE"), replace(write, command="UPDATE"))
    assert found == [("read", 1, ("SELECT",), ()), ("write", 1, ("UPDATE", "DELETE"), ())]


def test_relations_properties_and_shared_rows_are_told_apart() -> None:
    assert len(told(LEAK, replace(LEAK, relation=2), replace(LEAK, breaks="forge"))) == 3
    assert len(told(replace(LEAK, breaks="write"), replace(LEAK, breaks="write", owner=""))) == 2
    assert len(told(replace(LEAK, breaks="write"), replace(LEAK, breaks="write", command="TRUNCATE"))) == 2


def test_a_privilege_that_was_given_on_everything_is_told_once_with_what_takes_it_back() -> None:
    """Platforms grant ALL on every table to every client role; that is one slip, not one for each table."""
    emptied = replace(LEAK, breaks="write", command="TRUNCATE", channel="digest", changed=1)
    also = replace(emptied, relation=2, role="other", changed=2)
    grants = (
        Grant("relation", 1, 0, 20, "TRUNCATE", False), Grant("relation", 2, 0, 21, "TRUNCATE", False),
        Grant("relation", 2, 0, 21, "SELECT", False), Grant("relation", 2, 0, 10, "TRUNCATE", False),
    )  # fmt: skip
    roles = tuple(
        Role(oid, name, False, False, True, False, False, False, False) for oid, name in ((20, "app"), (21, "other"))
    )
    catalog = replace(CATALOG, grants=grants, roles=roles)
    (one,) = worth_telling(catalog, (emptied, also))
    assert (one.siblings, one.roles) == ((2,), ("app", "other"))
    found = as_finding(catalog, one, "")
    assert (found.object, found.also) == ("s.a", ("s.b",))
    assert "The same in s.b." in found.message
    assert found.fix == 'REVOKE TRUNCATE ON "s"."a" FROM "app";\nREVOKE TRUNCATE ON "s"."b" FROM "other";'
    assert found.fingerprint != replace(found, also=()).fingerprint, "a table that joins them is no old finding"


def test_partitions_are_siblings_but_not_their_root() -> None:
    found = told(replace(LEAK, relation=3), replace(LEAK, relation=4), replace(LEAK, relation=5))
    assert found == [("read", 3, ("SELECT",), ()), ("read", 4, ("SELECT",), (5,))]


def test_open_with_a_context_is_not_told_again_without_one() -> None:
    closed = replace(LEAK, breaks="closed", actor="")
    assert told(LEAK, closed) == [("read", 1, ("SELECT",), ())]
    assert len(told(LEAK, replace(closed, relation=2))) == 2
    assert len(told(LEAK, replace(closed, command="DELETE"))) == 2
    assert len(told(LEAK, replace(closed, role="other"))) == 2


def test_carryover_is_the_context_s() -> None:
    carried = replace(LEAK, breaks="carryover")
    assert told(carried, replace(carried, relation=2)) == [("carryover", 1, ("SELECT",), (2,))]


def test_roles_that_show_the_same_are_one_finding() -> None:
    (one,) = worth_telling(CATALOG, (LEAK, replace(LEAK, role="other")))
    assert one.roles == ("app", "other")


def test_the_plainest_program_is_shown() -> None:
    longer = replace(LEAK, visits=(Visit(("SAVEPOINT s", "SELECT a FROM a"), commit=False),))
    noisy = replace(LEAK, channel="error")
    assert shortest([longer, noisy, LEAK]) == (LEAK,)
    assert shortest([LEAK, noisy, longer]) == (LEAK,)
