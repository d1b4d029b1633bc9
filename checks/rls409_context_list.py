"""Tenant keys held against a list that is cut out of one setting."""

from __future__ import annotations

from collections.abc import Iterator

from rlsaudit.checks._context import with_plain_key
from rlsaudit.checks._examples import PROTECTED, TENANT
from rlsaudit.checks._fixes import policy_name, several
from rlsaudit.checks._reading import Shape, Use, one_of_each_reading
from rlsaudit.checks._routines import calls

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.outcome import Way
from rlsaudit.catalog.policies import settings, settings_read
from rlsaudit.check import Example, Hit, Subject, check, literal, quote, remark

_SPLIT = frozenset(
    {"string_to_array", "regexp_split_to_array", "string_to_table", "regexp_split_to_table", "regexp_matches", "unnest"}
)
_LIST = "string_to_array(NULLIF(current_setting('app.tenant_ids', true), ''), ',')"


@check(
    "RLS409",
    title="A policy splits a setting into a list of tenants",
    severity="medium",
    rationale=(
        "A value with a comma in it is several tenants. Whatever reaches the setting without being checked as one key"
        " widens the scope, as data and without SQL injection; a single key with a cast would be an error instead."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.28", "NIST 800-53 SI-10", "CWE-20"),
    examples=(
        Example(
            setup=PROTECTED,
            bad=f"CREATE POLICY tenant ON invoices USING (tenant_id = ANY ({_LIST}::int[]));",
            good=f"CREATE POLICY tenant ON invoices USING ({TENANT});",
        ),
        Example(
            setup=PROTECTED,
            bad=f"CREATE POLICY tenant ON invoices USING (tenant_id::text IN (SELECT unnest({_LIST})));",
            good=f"CREATE POLICY tenant ON invoices USING ({TENANT} AND tenant_id = ANY ({_LIST}::int[]));",
        ),
    ),
)
def context_list(subject: Subject) -> Iterator[Hit]:
    found: dict[int, tuple[Use, dict[str, None], dict[str, None]]] = {}
    single = False
    known: dict[Shape, list[tuple[set[str], bool]]] = {}
    for use in one_of_each_reading(subject):
        shape = use.reading.shape
        if shape not in known:
            known[shape] = [_held(subject, way, use.place.key) for way, _ in use.reaches]
        for names, alone in known[shape]:
            single = single or alone
            if names and not alone:
                _, settings_, roles = found.setdefault(use.policy.oid, (use, {}, {}))
                settings_.update(dict.fromkeys(sorted(names)))
                roles[use.role.name] = None
    if not single:
        yield from _by_design(found)
        return
    alike: dict[tuple[str, ...], list[Use]] = {}
    for use, names_, _ in found.values():
        alike.setdefault(tuple(names_), []).append(use)
    for cause, held in alike.items():
        first, more = held[0], f" and {len(held) - 1} more" if len(held) > 1 else ""
        yield Hit(
            policy_name(first.policy, first.relation),
            f"The {policy_name(first.policy, first.relation)}{more} splits {several(cause)} into a list, while other"
            " policies hold one tenant against one setting: a value with a separator in it shows"
            f" {several(role for use, _, roles in found.values() for role in roles if use in held)} rows of several tenants"
            f" of {several(use.relation.qualified for use in held)}.",
            "\n".join(with_plain_key(subject, use) for use in held),
            relation=first.relation.qualified,
        )


def _held(subject: Subject, way: Way, key: str | None) -> tuple[set[str], bool]:
    """Settings that the way holds the key against as a list, and whether it holds it against one value."""
    names: set[str] = set()
    alone = False
    for condition in way:
        if condition.value is True and key is not None:
            names |= _split(subject, condition.atom, key)
            alone = alone or _one(subject, condition.atom, key)
    return names, alone


def _by_design(found: dict[int, tuple[Use, dict[str, None], dict[str, None]]]) -> Iterator[Hit]:
    """Every policy takes a list, so sessions of several tenants are meant to be."""
    if found:
        tables = several(use.relation.qualified for use, _, _ in found.values())
        names = several(name for _, named, _ in found.values() for name in named)
        yield Hit(
            f"setting {names}",
            f"Policies of {tables} split {names} into a list of tenants; the application must check each key it puts there,"
            " because a separator inside a value adds a tenant.",
            "\n".join(_one_tenant(*one) for one in found.values()),
            severity="low",
        )


def _one_tenant(use: Use, names: dict[str, None], _: dict[str, None]) -> str:
    column = use.relation.column(use.place.key or "")
    plain = f"= NULLIF(current_setting({literal(next(iter(names)))}, true), '')::{column.type if column else 'text'}"
    return remark(
        f"if sessions act for one tenant at a time: ALTER POLICY {quote(use.policy.name)} ON {use.relation.qualified}"
        f" USING ({quote(use.place.key or '')} {plain});"
    )


def _split(subject: Subject, atom: e.Expression, key: str) -> set[str]:
    """Settings that the key is held against as a list."""
    operand, source = None, None
    if isinstance(atom, e.AnyArray) and atom.any and atom.operator == "=":
        operand, source = atom.operand, atom.array
    elif (
        isinstance(atom, e.Subquery) and atom.kind == "any" and isinstance(atom.test, e.Compare) and not atom.relations
    ):
        operand, source = (
            atom.test.left,
            e.Opaque("", (*atom.parts, atom.test.right, *([atom.target] if atom.target else []))),
        )
    if operand is None or source is None or not _is_key(operand, key):
        return set()
    if any(isinstance(part, (e.Json, e.SessionRole)) for part in e.walk(source)):
        return set()
    if not _splits(subject, source):
        return set()
    return {name for name in settings(source, subject.catalog) if not name.startswith("request.")}


def _splits(subject: Subject, source: e.Expression) -> bool:
    for part in e.walk(source):
        if isinstance(part, e.Call) and part.name in _SPLIT:
            return True
        if (
            isinstance(part, e.Cast)
            and part.type.endswith("[]")
            and part.argument.type in ("text", "character varying")
        ):
            return True
        if isinstance(part, e.Call) and part.user and part.inlined is None:
            function = subject.catalog.function(part.function)
            if function and any(call.name in _SPLIT for call in calls(function.source)):
                return True
    return False


def _one(subject: Subject, atom: e.Expression, key: str) -> bool:
    """Whether the key is held against one value of the session."""
    if not isinstance(atom, e.Compare) or atom.operator != "=" or not atom.exact:
        return False
    for side, other in ((atom.left, atom.right), (atom.right, atom.left)):
        if _is_key(side, key) and (settings(other, subject.catalog) or _asks(subject, other)):
            return True
    return False


def _asks(subject: Subject, other: e.Expression) -> bool:
    return any(isinstance(p, e.Call) and p.user and settings_read(subject.catalog, p.function) for p in e.walk(other))


def _is_key(side: e.Expression, key: str) -> bool:
    column = e.bare(side)
    return isinstance(column, e.Column) and column.level == 0 and column.name == key
