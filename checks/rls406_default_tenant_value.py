"""Policies and context functions that put a tenant in the place of a missing one."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace

from rlsaudit.checks._context import with_plain_key
from rlsaudit.checks._default import nobody
from rlsaudit.checks._examples import PROTECTED
from rlsaudit.checks._fixes import policy_name, several
from rlsaudit.checks._reading import STATES, Use, one_of_each_reading
from rlsaudit.checks._routines import calls, constant, rewrite, tokens

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.outcome import Way, ways
from rlsaudit.catalog.policies import settings_read
from rlsaudit.catalog.routines import Function
from rlsaudit.catalog.simplify import State, simplify
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import Severity

_POLICY = """\
CREATE POLICY tenant ON invoices USING (
  tenant_id = COALESCE(NULLIF(current_setting('app.tenant_id', true), ''), '{}')::int);"""
_FUNCTION = """\
CREATE FUNCTION tenant() RETURNS int LANGUAGE plpgsql STABLE AS $$
DECLARE found text := current_setting('app.tenant_id', true);
BEGIN
  IF found IS NULL OR found = '' THEN
    RETURN {};
  END IF;
  RETURN found::int;
END $$;
CREATE POLICY tenant ON invoices USING (tenant_id = tenant());"""
_PLAIN = """\
CREATE FUNCTION tenant() RETURNS int LANGUAGE sql STABLE AS $$
  SELECT COALESCE(NULLIF(current_setting('app.tenant_id', true), ''), {})::int $$;
CREATE POLICY tenant ON invoices USING (tenant_id = tenant());"""
_SHARED = frozenset({"public", "shared", "global", "system", "common", "template", "all"})


@check(
    "RLS406",
    title="A session without context acts as a fixed tenant",
    severity="high",
    rationale=(
        "A default in the place of a missing tenant turns every forgotten context into access to that tenant's rows."
        " Without context there must be nothing to see and nothing to change."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-1188"),
    examples=(
        Example(setup=PROTECTED, bad=_POLICY.format("1"), good=_POLICY.format("-1")),
        Example(setup=PROTECTED, bad=_FUNCTION.format("1"), good=_FUNCTION.format("NULL")),
        Example(setup=PROTECTED, bad=_PLAIN.format("'1'"), good=_PLAIN.format("NULL")),
    ),
)
def default_tenant_value(subject: Subject) -> Iterator[Hit]:
    found: dict[tuple[str, int], list[_Default]] = {}
    known: dict[Hashable, tuple[_Default, ...]] = {}
    for use in one_of_each_reading(subject):
        alike = known.get(use.reading.shape)
        if alike is None:
            alike = known[use.reading.shape] = tuple(_defaults(subject, use))
        for one in (replace(one, use=use) for one in alike):
            place = one.function.oid if one.function else 0
            found.setdefault((one.value, place), []).append(one)
    for (value, _), ones in found.items():
        function = ones[0].function
        tables = several(one.use.relation.qualified for one in ones)
        roles = several(one.use.role.name for one in ones)
        acts = f"a session of {roles} without context acts on {tables} as tenant {value}"
        severity: Severity | None = "low" if value.lower() in _SHARED else None
        if function is not None:
            fix = rewrite(function, _changes(function, value))
            yield Hit(
                function.signature, f"{function.signature} answers {value} when nothing is set: {acts}.", fix, severity
            )
            continue
        policies = list({one.use.policy.oid: one.use for one in ones}.values())
        named = policy_name(policies[0].policy, policies[0].relation)
        more = f" and {len(policies) - 1} more policies" if len(policies) > 1 else ""
        fixes = "\n".join(with_plain_key(subject, use) for use in policies)
        detail = f"The {named}{more} puts {value} in the place of a missing setting: {acts}."
        yield Hit(named, detail.replace("policies puts", "policies put"), fixes, severity)


@dataclass(frozen=True)
class _Default:
    use: Use
    value: str
    function: Function | None


def _defaults(subject: Subject, use: Use) -> Iterator[_Default]:
    """Constants that the key is held against only while settings are missing."""
    if use.place.key is None:
        return
    usual = {value for way in ways(use.predicate) or () for value in _constants(way, use.place.key)}
    for state, _ in STATES:
        for way in ways(use.predicate, True, state) or ():
            for value in _constants(way, use.place.key):
                if value not in usual and not nobody(value):
                    yield _Default(use, value, _saying(subject, use, value, state))
    for comparison in e.comparisons(use.predicate):
        if comparison.column.name != use.place.key or comparison.operator != "=":
            continue
        for part in e.walk(comparison.other):
            if isinstance(part, e.Call) and part.user and part.inlined is None:
                function = subject.catalog.function(part.function)
                for value in _answers(subject, function) if function else ():
                    yield _Default(use, value, function)


def _saying(subject: Subject, use: Use, value: str, state: State) -> Function | None:
    """The function that answers the value, where the default is not in the policy itself."""
    for part in e.walk(use.predicate):
        if isinstance(part, e.Call) and part.user and part.inlined is not None:
            answer = simplify(part.inlined, state)
            if isinstance(answer, e.Constant) and answer.value == value:
                return subject.catalog.function(part.function)
    return None


def _constants(way: Way, key: str) -> Iterator[str]:
    for condition in way:
        atom = condition.atom
        if condition.value is not True or not isinstance(atom, e.Compare) or atom.operator != "=":
            continue
        for side, other in ((atom.left, atom.right), (atom.right, atom.left)):
            column, value = e.bare(side), e.bare(other)
            named = isinstance(column, e.Column) and column.level == 0 and column.name == key
            if named and isinstance(value, e.Constant) and value.value is not None:
                yield value.value


def _answers(subject: Subject, function: Function) -> tuple[str, ...]:
    """Constants that a context function returns on some way, beside what it reads."""
    if function.returns in ("boolean", "void", "trigger") or not settings_read(subject.catalog, function.oid):
        return ()
    found = [value for value, _, _ in _spots(function)]
    return tuple(dict.fromkeys(value for value in found if not nobody(value)))


def _spots(function: Function) -> Iterator[tuple[str, int, int]]:
    """(constant, start, end) of every ``RETURN constant`` and of the last argument of COALESCE."""
    found = tokens(function.source)
    for index, token in enumerate(found):
        if token.is_word("return") and function.language == "plpgsql":
            rest = []
            for other in found[index + 1 :]:
                if other.is_symbol(";"):
                    break
                rest.append(other)
            value = constant(rest)
            if value is not None and rest:
                yield value, token.start, rest[-1].end
    for call in calls(function.source):
        if call.name == "coalesce" and len(call.arguments) > 1:
            value = constant(call.arguments[-1])
            reads = any(token.is_word("current_setting") for part in call.arguments for token in part)
            if value is not None and reads:
                yield value, call.start, call.end


def _changes(function: Function, value: str) -> list[tuple[str, str]]:
    changes = []
    for found, start, end in _spots(function):
        old = function.source[start:end]
        if found == value:
            changes.append(
                (old, "RETURN NULL" if old.lower().startswith("return") else _without_last(function, start, end))
            )
    return changes


def _without_last(function: Function, start: int, end: int) -> str:
    for call in calls(function.source):
        if (call.start, call.end) == (start, end):
            last = call.arguments[-1]
            return function.source[start : last[0].start] + "NULL" + function.source[last[-1].end : end]
    return function.source[start:end]
