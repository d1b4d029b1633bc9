"""Rows whose tenant is the empty string."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rlsaudit.checks._fixes import listed, policy_name, several
from rlsaudit.checks._reading import Use, uses

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression, bare
from rlsaudit.catalog.outcome import Condition, Way, ways
from rlsaudit.catalog.policies import check_predicate
from rlsaudit.catalog.relations import Column, Constraint, Relation
from rlsaudit.check import Example, Hit, Subject, check, quote

_TEXTS = ("text", "character varying", "character", "citext", "name")
_PATTERN = re.compile(r" ~\*? '((?:[^']|'')*)'")
_NOT_EMPTY = re.compile(r"<> ''|length\([^<>=]*\) (?:>=? [1-9]|> 0|= [1-9])|\bVALUE\)*(?:::[\w ]+)? = (?:ANY|'[^'])")
_TICKETS = """\
CREATE ROLE app LOGIN;
CREATE TABLE tickets (id int PRIMARY KEY, tenant text NOT NULL, title text);
ALTER TABLE tickets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tickets USING (tenant = current_setting('app.tenant', true));
GRANT SELECT, INSERT ON tickets TO app;
"""


@check(
    "RLS118",
    title="An empty context owns the rows whose tenant is empty",
    severity="medium",
    rationale=(
        "After a transaction with SET LOCAL the setting is not NULL but the empty string, and that equals a tenant key"
        " that is empty too. Imports and bugs of the application leave such rows behind: every session without a tenant"
        " reads and writes them. A CHECK that forbids the empty key, or NULLIF in the policy, closes it."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-636"),
    examples=(
        Example(
            setup=_TICKETS,
            bad="ALTER TABLE tickets ADD CHECK (title <> '');",
            good="ALTER TABLE tickets ADD CHECK (tenant <> '');",
        ),
        Example(
            setup=_TICKETS,
            bad="ALTER TABLE tickets ADD CHECK (tenant IS NOT NULL);",
            good="ALTER POLICY tenant ON tickets USING (tenant = NULLIF(current_setting('app.tenant', true), ''));",
        ),
    ),
)
def empty_tenant_key(subject: Subject) -> Iterator[Hit]:
    found: dict[tuple[int, str], list[Use]] = {}
    roots: dict[int, tuple[Relation, Column] | None] = {}
    for use in uses(subject):
        column = use.relation.column(use.place.key) if use.place.key else None
        if column is None or column.base_type.partition("(")[0] not in _TEXTS:
            continue
        oid = use.relation.oid
        if oid not in roots:
            roots[oid] = _admitting(subject, use.relation, column, frozenset())
        root = roots[oid]
        if root is not None and any(_owns_empty(way, column) for way in ways(use.predicate, True, "empty") or ()):
            found.setdefault((root[0].oid, root[1].name), []).append(use)
    for (oid, name), group in found.items():
        root_relation, key = subject.catalog.relation(oid), quote(name)
        relation = group[0].relation
        tables = several(f"{use.relation.qualified}.{quote(use.place.key or '')}" for use in group)
        policies = several(dict.fromkeys(policy_name(use.policy, use.relation) for use in group))
        lack = (
            f"no constraint of {root_relation.qualified} forbids it"
            if root_relation != relation
            else "no constraint forbids it"
        )
        holds = "holds" if len({use.policy.oid for use in group}) == 1 else "hold"
        roles = listed(use.role.name for use in group)
        yield Hit(
            relation.qualified,
            f"While the tenant setting is empty, {policies} {holds} '' against {tables}, and {lack}: sessions of {roles}"
            f" without a tenant reach the rows whose key is empty ({listed(use.command for use in group)}).",
            f"ALTER TABLE {root_relation.qualified} ADD CHECK ({key} <> '');",
            relation=relation.qualified,
            command=listed(use.command for use in group),
            role=roles,
        )


def _owns_empty(way: Way, column: Column) -> bool:
    """Whether the way asks for the key to be ''."""
    for condition in way:
        atom = condition.atom
        if condition.value is True and isinstance(atom, e.Compare) and atom.operator == "=" and atom.exact:
            for side, other in ((bare(atom.left), atom.right), (bare(atom.right), atom.left)):
                if isinstance(side, e.Column) and side.level == 0 and side.name == column.name:
                    return isinstance(other, e.Constant) and other.value == ""
    return False


def _admitting(
    subject: Subject, relation: Relation, column: Column, seen: frozenset[int]
) -> tuple[Relation, Column] | None:
    """The column that lets '' in: this one, or the one it refers to; None when its type or a constraint forbids ''."""
    if column.enum_labels or any(_forbids_text(text) for text in column.domain_checks):
        return None
    admitting = relation, column
    for constraint in subject.catalog.constraints_of(relation.oid):
        if not constraint.validated or not constraint.enforced:
            continue
        if constraint.kind == "check" and _forbids(subject, constraint, column):
            return None
        if constraint.kind == "foreign key" and column.number in constraint.columns:
            parent = subject.catalog.find_relation(constraint.referenced)
            number = constraint.referenced_columns[constraint.columns.index(column.number)]
            target = parent.column_number(number) if parent else None
            if parent is None or target is None or parent.oid in seen | {relation.oid}:
                continue
            further = _admitting(subject, parent, target, seen | {relation.oid})
            if further is None:
                return None
            admitting = further
    return admitting


def _forbids(subject: Subject, constraint: Constraint, column: Column) -> bool:
    """Whether every way to satisfy the CHECK rules out ''."""
    predicate = check_predicate(subject.catalog, constraint)
    found = ways(predicate, True) if predicate is not None else None
    return bool(found) and all(any(_rules_out(condition, column.name) for condition in way) for way in found or ())


def _rules_out(condition: Condition, name: str) -> bool:
    """Whether the condition is not true of ''; one on the key that cannot be evaluated is taken for that."""
    atom = condition.atom
    if name not in e.columns(atom) or isinstance(atom, (e.NullTest, e.Distinct)):
        return False
    if condition.value is not True:
        return not isinstance(atom, (e.Compare, e.InList))
    if isinstance(atom, e.InList):
        return atom.any and all(isinstance(item, e.Constant) and item.value != "" for item in atom.items)
    if not isinstance(atom, e.Compare) or not isinstance(atom.right, e.Constant):
        return not isinstance(atom, e.Compare) or e.columns(atom) == {name}
    value = _of_empty(atom.left)
    return value is None or not _holds(value, atom.operator, atom.right.value or "")


def _of_empty(part: Expression) -> str | None:
    """What the expression is when the key is ''; None when that is not known."""
    part = bare(part)
    if isinstance(part, e.Column):
        return ""
    if isinstance(part, e.Call) and part.schema == "pg_catalog" and part.arguments:
        inner = _of_empty(part.arguments[0])
        if inner == "" and part.name in ("btrim", "ltrim", "rtrim", "lower", "upper"):
            return ""
        if inner == "" and part.name in ("length", "char_length", "character_length", "octet_length"):
            return "0"
    return _of_empty(part.argument) if isinstance(part, e.Cast) else None


def _holds(value: str, operator: str, right: str) -> bool:
    match operator:
        case "~" | "~*":
            return _matches(right)
        case "!~" | "!~*":
            return not _matches(right)
        case "~~" | "~~*":
            return not right.strip("%")
    if value.isdigit() and right.lstrip("-").isdigit():
        a, b = int(value), int(right)
        return {"=": a == b, "<>": a != b, ">": a > b, ">=": a >= b, "<": a < b, "<=": a <= b}.get(operator, False)
    return {"=": right == value, "<>": right != value, ">": False, ">=": right == "", "<": right != ""}.get(
        operator, True
    )


def _matches(pattern: str) -> bool:
    try:
        return re.search(pattern, "") is not None
    except re.error:
        return False


def _forbids_text(definition: str) -> bool:
    """Whether a domain's CHECK, of which only the text is known, is false for ''."""
    patterns = _PATTERN.findall(definition)
    return bool(_NOT_EMPTY.search(definition)) or any(not _matches(one.replace("''", "'")) for one in patterns)
