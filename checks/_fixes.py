"""SQL that closes a finding, and words for its message."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import chain

from rlsaudit.checks._reading import bound, uses

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.grants import PUBLIC, Grant
from rlsaudit.catalog.identifiers import literal, quote, remark
from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.catalog.relations import COMMANDS, Policy, Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Subject, kept
from rlsaudit.tenancy.model import ApplicationRole, Classified

_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")


def listed(names: Iterable[str]) -> str:
    """``a, b and c``."""
    found = list(dict.fromkeys(names))
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}" if found else ""


def several(names: Iterable[str], most: int = 8) -> str:
    """``a, b and c``, or of many the first few and how many more."""
    found = list(dict.fromkeys(names))
    return listed(found if len(found) <= most + 1 else [*found[:most], f"{len(found) - most} more"])


def in_order(commands: Collection[str]) -> tuple[str, ...]:
    """Commands in the order people write them."""
    order = (*COMMANDS, "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN")
    return tuple(command for command in order if command in commands)


def held(subject: Subject, role: int, relation: Relation) -> tuple[str, ...]:
    """The row commands that the role may use on the relation."""
    return tuple(command for command in COMMANDS if subject.visibility.may(role, relation, command))


def users_of(subject: Subject, relation: Relation) -> tuple[tuple[ApplicationRole, tuple[str, ...]], ...]:
    """Application roles with a privilege on rows of the relation, and which."""
    found = ((role, held(subject, role.oid, relation)) for role in subject.tenancy.roles)
    return tuple((role, commands) for role, commands in found if commands)


def said(who: Sequence[tuple[ApplicationRole, tuple[str, ...]]]) -> str:
    """``app (SELECT, INSERT) and worker (SELECT)``."""
    return listed(f"{role.name} ({', '.join(commands)})" for role, commands in who)


def revoke(subject: Subject, relation: Relation, role: int, privileges: Collection[str]) -> str:
    """Takes privileges away from the grantees that the role has them from, other than the owner."""
    catalog, mine = subject.catalog, subject.visibility.inherits(role) | {PUBLIC}
    found: dict[int, set[str]] = {}
    columns: list[str] = []
    for grant in _grants(subject).get(relation.oid, ()):
        if grant.privilege not in privileges or grant.grantee not in mine or grant.grantee == relation.owner:
            continue
        if grant.target == "relation":
            found.setdefault(grant.grantee, set()).add(grant.privilege)
        elif column := relation.column_number(grant.column):
            grantee = _grantee(subject, grant.grantee)
            columns.append(
                f"REVOKE {grant.privilege} ({quote(column.name)}) ON TABLE {relation.qualified} FROM {grantee};"
            )
    lines = [
        f"REVOKE {', '.join(in_order(what))} ON TABLE {relation.qualified} FROM {_grantee(subject, grantee)};"
        for grantee, what in found.items()
    ]
    if not lines and not columns:
        names = {catalog.role(oid).name for oid in mine - {PUBLIC, role}}
        lines = [
            f"REVOKE {name} FROM {quote(catalog.role_name(role))};"
            for name in ("pg_read_all_data", "pg_write_all_data", "pg_maintain")
            if name in names
        ]
    return "\n".join(lines + columns)


def _grantee(subject: Subject, oid: int) -> str:
    return "PUBLIC" if oid == PUBLIC else quote(subject.catalog.role_name(oid))


@kept
def _grants(subject: Subject) -> dict[int, list[Grant]]:
    found: dict[int, list[Grant]] = {}
    for grant in chain(subject.catalog.grants_on("relation"), subject.catalog.grants_on("column")):
        found.setdefault(grant.object, []).append(grant)
    return found


def tenant_predicate(subject: Subject, relation: Relation, classified: Classified) -> str | None:
    """SQL that holds a row against the session's tenant: as most other policies of this schema do it."""
    if classified.path:
        step = classified.path[0]
        parent = subject.catalog.relation(step.relation)
        pairs = zip(step.columns, step.referenced_columns, strict=True)
        joined = " AND ".join(f"parent.{quote(there)} = {relation.qualified}.{quote(here)}" for here, there in pairs)
        return f"EXISTS (SELECT FROM {parent.qualified} AS parent WHERE {joined})"
    column = relation.column(classified.key) if classified.key else None
    if column is None:
        return None
    template = _templates(subject).get((column.name, column.base_type))
    if template is not None:
        return template
    setting = _setting(subject)
    if setting is None:
        return None
    return f"{quote(column.name)} = NULLIF(current_setting({literal(setting)}, true), '')::{column.type}"


@kept
def _setting(subject: Subject) -> str | None:
    """The one setting that tenant keys are held against by most policies."""
    found: Counter[str] = Counter()
    for use in uses(subject):
        for comparison in e.comparisons(use.predicate):
            if comparison.column.name == use.place.key:
                found.update(part.name for part in e.walk(comparison.other) if isinstance(part, e.Setting))
    if found:
        return found.most_common(1)[0][0]
    settings = subject.tenancy.context.settings
    return settings[0] if len(settings) == 1 else None


@kept
def _templates(subject: Subject) -> dict[tuple[str, str], str]:
    """Condition texts that bind a row to the session's tenant by its key column alone, by column name and type."""
    counted: dict[tuple[str, str], Counter[str]] = {}
    for use in uses(subject):
        key = use.relation.column(use.place.key) if use.place.key else None
        predicate = policy_predicate(subject.catalog, use.policy, "using")
        if key is None or predicate is None or use.policy.using is None or use.side != "old":
            continue
        if e.columns(predicate) == {key.name} and not e.subquery_relations(predicate) and bound(use):
            counted.setdefault((key.name, key.base_type), Counter())[use.policy.using] += 1
    return {names: texts.most_common(1)[0][0] for names, texts in counted.items()}


def policy_for(subject: Subject, relation: Relation, classified: Classified, name: str = "tenant_isolation") -> str:
    """CREATE POLICY with the tenant's condition; a remark where it cannot be told."""
    predicate = tenant_predicate(subject, relation, classified)
    if predicate is None:
        return remark(f"then a policy for {relation.qualified} that compares its rows with the session's tenant")
    taken = {policy.name for policy in subject.catalog.policies_of(relation.oid)}
    while name in taken:
        name += "_2"
    return f"CREATE POLICY {quote(name)} ON {relation.qualified} USING ({_inner(predicate)});"


def protect(subject: Subject, relation: Relation, classified: Classified) -> str:
    """Row security on, forced, and a policy when there is none."""
    lines = [
        f"ALTER TABLE {relation.qualified} ENABLE ROW LEVEL SECURITY;",
        f"ALTER TABLE {relation.qualified} FORCE ROW LEVEL SECURITY;",
    ]
    if not subject.catalog.policies_of(relation.oid):
        lines.append(policy_for(subject, relation, classified))
    return "\n".join(lines)


def narrow(
    subject: Subject, relation: Relation, classified: Classified, policy: Policy, *, using: bool, check: bool
) -> str:
    """ALTER POLICY that adds the tenant's condition to USING, WITH CHECK or both; DROP POLICY when it is unknown."""
    predicate = tenant_predicate(subject, relation, classified)
    if predicate is None:
        return f"DROP POLICY {quote(policy.name)} ON {relation.qualified};"
    parts = []
    if using and policy.using is not None:
        parts.append(f"USING ({_joined(predicate, policy.using)})")
    if check and policy.command in ("ALL", "INSERT", "UPDATE"):
        old = policy.check if policy.check is not None else policy.using
        parts.append(f"WITH CHECK ({_joined(predicate, old)})")
    return f"ALTER POLICY {quote(policy.name)} ON {relation.qualified} {' '.join(parts)};"


def _inner(text: str) -> str:
    """The text without a pair of parentheses around the whole of it."""
    plain = _QUOTED.sub(lambda match: "x" * len(match.group()), text)
    if not plain.startswith("("):
        return text
    depth = 0
    for position, character in enumerate(plain):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[1:-1] if position == len(text) - 1 else text
    return text


def _joined(predicate: str, old: str | None) -> str:
    if old is None or old == "true":
        return _inner(predicate)
    return f"({_inner(predicate)}) AND ({_inner(old)})"


def policy_name(policy: Policy, relation: Relation) -> str:
    return f"policy {quote(policy.name)} on {relation.qualified}"


def routine(function: Function) -> str:
    return "PROCEDURE" if function.kind == "procedure" else "FUNCTION"
