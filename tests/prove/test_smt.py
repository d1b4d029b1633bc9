"""What is told without the solver: terms simplify to equal ones, and what is known by itself is put in rightly."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from rlsaudit.prove import smt, solver
from rlsaudit.prove.smt import Term

NUMBERS = range(2)


def evaluated(term: Term, values: dict[str, int | bool]) -> int | bool:
    """By the meaning of the operators; ``f`` gives the other number."""
    given = [evaluated(one, values) for one in term.arguments]
    if term.name:
        return 1 - int(given[0]) if given else values[term.name]
    match term.operator:
        case "and":
            return all(given)
        case "or":
            return any(given)
        case "not":
            return not given[0]
        case "=":
            return given[0] == given[1]
        case "ite":
            return given[1] if given[0] else given[2]
        case "<":
            return given[0] < given[1]
        case "true" | "false":
            return term.operator == "true"
    return int(term.operator)


def numbers(depth: int) -> st.SearchStrategy[Term]:
    leaves = st.one_of(st.sampled_from("xyz").map(smt.number), st.sampled_from(NUMBERS).map(smt.literal))
    if depth == 0:
        return leaves
    less = numbers(depth - 1)
    return st.one_of(
        leaves,
        less.map(lambda one: smt.function("f", "Int", one)),
        st.tuples(truths(depth - 1), less, less).map(lambda three: smt.choice(*three)),
    )


def truths(depth: int) -> st.SearchStrategy[Term]:
    leaves = st.one_of(st.sampled_from("pqr").map(smt.truth), st.sampled_from((smt.TRUE, smt.FALSE)))
    if depth == 0:
        return leaves
    less, terms = truths(depth - 1), numbers(depth - 1)
    return st.one_of(
        leaves,
        less.map(smt.negation),
        st.lists(less, max_size=3).map(smt.conjunction),
        st.lists(less, max_size=3).map(smt.disjunction),
        st.tuples(less, less, less).map(lambda three: smt.choice(*three)),
        st.tuples(less, less).map(lambda two: smt.equal(*two)),
        st.tuples(terms, terms).map(lambda two: smt.equal(*two)),
        st.tuples(terms, terms).map(lambda two: smt.ordered("<", *two)),
    )


WORLDS = [
    dict(zip("pqrxyz", (*booleans, *integers), strict=True))
    for booleans in itertools.product((False, True), repeat=3)
    for integers in itertools.product(NUMBERS, repeat=3)
]


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.lists(truths(3), min_size=1, max_size=6))
def test_what_is_settled_says_the_same(terms: list[Term]) -> None:
    whole = smt.settled(terms)
    for values in WORLDS:
        assert evaluated(whole, values) == all(evaluated(one, values) for one in terms)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(truths(3), truths(2), truths(2))
def test_operators_mean_what_they_say(one: Term, other: Term, third: Term) -> None:
    pairs = {
        smt.conjunction([one, other]): lambda a, b, c: a and b,
        smt.disjunction([one, other]): lambda a, b, c: a or b,
        smt.negation(one): lambda a, b, c: not a,
        smt.equal(one, other): lambda a, b, c: a == b,
        smt.choice(one, other, third): lambda a, b, c: b if a else c,
    }
    for values in WORLDS:
        for term, meaning in pairs.items():
            assert evaluated(term, values) == meaning(*(evaluated(x, values) for x in (one, other, third)))


def test_a_goal_that_runs_out_of_time_is_not_decided() -> None:
    holes = [[smt.truth(f"{pigeon} in {hole}") for hole in range(9)] for pigeon in range(10)]
    terms = [smt.disjunction(pigeon) for pigeon in holes]
    for hole in range(9):
        for one, other in itertools.combinations(holes, 2):
            terms.append(smt.negation(smt.conjunction([one[hole], other[hole]])))
    clock = solver.Clock(limit=20)
    assert solver.solve(terms, clock).holds is None
    assert "time limit" in clock.over and clock.spent >= 20
