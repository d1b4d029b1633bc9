"""The oracles, pure: what is a leak, and what is not."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlsaudit.probe.ground import oracle
from rlsaudit.probe.ground.session import Reply, Transcript
from rlsaudit.probe.ground.world import SHARED, Tenant, World, marks, tokens

ALICE, BOB = Tenant("A", "1", "u1"), Tenant("B", "11", "u2")
OWNED = [
    ("1", "qa00001x"), ("1", "a note qa00002x here"), ("1", "common0"), ("11", "common0"), ("11", "qb00001x"),
    ("11", "see qb00002x, please"), ("11", None), ("11", "tiny"), ("11", "b0000000-0000-4000-8000-00000000000a"),
    (SHARED, "shared01"),
]  # fmt: skip
WORLD = World((ALICE, BOB), {}, {}, marks(OWNED))


def rows(*cells: str | None) -> Reply:
    return Reply(rows=tuple((cell,) for cell in cells), tag=f"SELECT {len(cells)}")


@pytest.mark.parametrize("make", [
    str.upper, str.title, lambda t: t[::-1], lambda t: hashlib.md5(t.encode()).hexdigest(),
    lambda t: base64.b64encode(t.encode()).decode(), lambda t: t.encode().hex(), lambda t: "\\x" + t.encode().hex(),
    lambda t: f"[{{'a': '{t.upper()}'}}]",
])  # fmt: skip
def test_marks_in_other_forms(make) -> None:
    world = World((ALICE, BOB), {}, {}, marks(OWNED))
    evidence = oracle.taint([rows(make("qb00001x"))], (), world, "1", "SELECT")
    assert evidence is not None
    assert (evidence.property, evidence.owner) == ("read", "11")
    assert evidence.mark in make("qb00001x")
    assert world.plain(evidence.mark) == "qb00001x"
    assert oracle.taint([rows(make("qb00001x"))], (), world, "11", "SELECT") is None
    assert oracle.taint([rows(make("qb00001x"))], (), world, "1", "SELECT f('qb00001x')") is None
    assert oracle.own_seen(Transcript((rows(make("qb00001x")),), ()), world, "11")


def test_own_text_that_looks_like_another_form_is_no_leak() -> None:
    own = {"word": "ABC123"}
    stored = {(1, "1"): (own,), (1, "11"): ({"word": "abc123"},)}
    world = World((ALICE, BOB), stored, {}, marks([("1", "ABC123"), ("11", "abc123")]))
    assert oracle.taint([rows("ABC123")], (), world, "1", "SELECT") is None
    shared = World(
        (ALICE, BOB), {**stored, (2, "11"): (own,)}, {}, marks([("1", "ABC123"), ("11", "abc123"), ("11", "ABC123")])
    )
    assert oracle.taint([rows("ABC123")], (), shared, "1", "SELECT") is None
    assert (
        oracle.taint([rows("7654321")], (), World((ALICE, BOB), {}, {}, marks([("11", "1234567")])), "1", "SELECT")
        is None
    )


def test_marks() -> None:
    assert WORLD.marks["qa00001x"] == "1"
    assert WORLD.marks["qb00002x"] == "11"
    assert WORLD.marks["shared01"] == SHARED
    assert "common0" not in WORLD.marks, "a value of two owners marks nobody"
    assert "tiny" not in WORLD.marks
    assert "please" not in WORLD.marks, "a word without a digit is no mark"


VALUES = st.lists(
    st.tuples(st.sampled_from(["1", "11", SHARED]), st.text("ab01 -", min_size=0, max_size=9)), max_size=12
)


@given(VALUES, st.randoms(use_true_random=False))
def test_marks_depend_on_no_order_and_name_their_only_owner(owned, random) -> None:
    found = marks(owned)
    shuffled = list(owned)
    random.shuffle(shuffled)
    assert marks(shuffled) == found
    for text, owner in found.items():
        holders = {who for who, value in owned if len(value) >= 5 and (value == text or text in set(tokens(value)))}
        assert holders == {owner}


def test_foreign_row() -> None:
    found = oracle.taint([rows("qa00001x", "qb00001x")], [], WORLD, "1", "SELECT")
    assert found == oracle.Evidence("read", "rows", "11", "qb00001x")


def test_foreign_word_inside_other_text_error_and_notice() -> None:
    assert oracle.taint([rows('{"a": "qb00002x"}')], [], WORLD, "1", "").owner == "11"  # type: ignore[union-attr]
    error = Reply(sqlstate="22P02", error='invalid input syntax: "qb00001x"\nrow contains (…)')
    assert oracle.taint([error], [], WORLD, "1", "") == oracle.Evidence("read", "error", "11", "qb00001x")
    assert oracle.taint([], ["saw qb00001x"], WORLD, "1", "") == oracle.Evidence("read", "notice", "11", "qb00001x")


def test_what_is_no_taint() -> None:
    for cell in ("qa00001x", "common0", "shared01", "nothing", "", None):
        assert oracle.taint([rows(cell)], ["qa00002x"], WORLD, "1", "") is None
    # What the program itself contains may come back.
    assert oracle.taint([rows("qb00001x")], [], WORLD, "1", "SELECT 'qb00001x'") is None


def test_without_context_every_tenant_is_foreign() -> None:
    assert oracle.taint([rows("qa00001x")], [], WORLD, "", "") is not None
    assert oracle.taint([rows("shared01")], [], WORLD, "", "") is None


@given(
    st.text(" .,:(){}'\"", max_size=4),
    st.text(" .,:(){}'\"", max_size=4),
    st.lists(st.sampled_from(["qa00001x", "x", ""]), max_size=3),
)
def test_foreign_mark_is_seen_wherever_it_stands(before, after, others) -> None:
    reply = rows(*others, f"{before}qb00001x{after}")
    assert oracle.taint([reply], [], WORLD, "1", "") is not None
    assert oracle.taint([reply], [], WORLD, "11", "SELECT qa00001x") is None


@given(st.lists(st.sampled_from(["qa00001x", "common0", "shared01", "whatever9", None]), max_size=5))
def test_own_and_common_values_are_never_taint(cells) -> None:
    assert oracle.taint([rows(*cells)], [], WORLD, "1", "") is None


def test_own_rows_are_the_positive_control() -> None:
    assert oracle.own_seen(Transcript((rows("qa00001x"),), ()), WORLD, "1")
    assert not oracle.own_seen(Transcript((rows("qb00001x", "common0"),), ()), WORLD, "1")
    assert not oracle.own_seen(Transcript((), ()), WORLD, "1")


def test_foreign_key() -> None:
    known = frozenset({"1", "11"})
    reply = Reply(rows=(("x", "1"), ("y", "11")))
    assert oracle.foreign_key_seen(reply, 1, "1", known) == oracle.Evidence("read", "rows", "11", "11")
    assert oracle.foreign_key_seen(reply, 0, "1", known) is None
    assert oracle.foreign_key_seen(reply, -1, "1", known) is None
    assert oracle.foreign_key_seen(Reply(rows=(("x", None), ("y", "77"))), 1, "1", known) is None


KNOWN = frozenset({"1", "11"})
DIGESTS = st.dictionaries(
    st.tuples(st.integers(1, 3), st.sampled_from(["1", "11", SHARED, "999"])),
    st.tuples(st.integers(1, 3).map(str), st.sampled_from("abc")),
    max_size=6,
)


@given(DIGESTS, st.sampled_from(["1", "11", ""]))
def test_nothing_changed(digest, actor) -> None:
    assert oracle.changed(digest, dict(digest), actor, KNOWN) is None


@given(DIGESTS, DIGESTS, st.sampled_from(["1", "11", ""]))
def test_changed_exactly_when_another_known_owner_differs(before, after, actor) -> None:
    differing = {
        place: int(after.get(place, ("0", ""))[0]) > int(before.get(place, ("0", ""))[0])
        for place in before.keys() | after.keys()
        if place[0] in {oid for oid, _ in after}
        and before.get(place, ("0", "")) != after.get(place, ("0", ""))
        and place[1] != actor
        and place[1] in (*KNOWN, SHARED)
    }
    found = oracle.changed(before, after, actor, KNOWN)
    assert (found is not None) == bool(differing)
    if found is not None:
        grew = differing[found.relation, found.owner]
        assert found.property == ("forge" if grew and found.owner != SHARED else "write")
        assert found.owner != SHARED or not any(owner != SHARED for _, owner in differing)


@given(DIGESTS, DIGESTS, DIGESTS, st.sampled_from(["1", "11", ""]))
def test_a_later_digest_stands_for_the_first_where_it_looked(before, since, after, actor) -> None:
    looked = {oid for oid, _ in since}
    stood = {place: one for place, one in before.items() if place[0] not in looked} | since
    assert oracle.changed(before, after, actor, KNOWN, since) == oracle.changed(stood, after, actor, KNOWN)


def test_digest_rows() -> None:
    reply = Reply(rows=(("16384", "1", "2", "77"), ("16384", "", "1", "5"), ("16385", None, None, None)))
    assert oracle.parse_digest(reply) == {
        (16384, "1"): ("2", "77"),
        (16384, SHARED): ("1", "5"),
        (16385, SHARED): ("0", ""),
    }
