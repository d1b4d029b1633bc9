"""Uniqueness that is held over the rows of all tenants."""

import re
from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed
from rlsaudit.checks._guarded import guarded
from rlsaudit.checks._keys import free_name
from rlsaudit.checks._references import dependants, recreated
from rlsaudit.checks._uniqueness import Unique, all_of, by_design, scope_columns, scoped, told

from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Example, Hit, Subject, check, qualified, quote
from rlsaudit.finding import SEVERITIES, Severity

_DOMAINS = (
    SOUND
    + """\
CREATE TABLE domains (id uuid DEFAULT gen_random_uuid(), tenant_id int NOT NULL, host text NOT NULL, active bool,
    PRIMARY KEY (tenant_id, id));
ALTER TABLE domains ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON domains USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
GRANT SELECT, INSERT, UPDATE, DELETE ON domains TO app;
"""
)


@check(
    "RLS502",
    title="A unique key reaches over tenants",
    severity="medium",
    rationale=(
        "Constraints see every row, whatever policies hide. When values that a client chooses are unique among all"
        " tenants, an insert that fails, or that ON CONFLICT DO NOTHING leaves out, tells that another tenant has"
        " the value, and one tenant can take values away from others."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-4", "CWE-203"),
    examples=(
        Example(
            setup=_DOMAINS,
            bad="ALTER TABLE domains ADD UNIQUE (host);",
            good="ALTER TABLE domains ADD UNIQUE (tenant_id, host);",
        ),
        Example(
            setup=_DOMAINS,
            bad="CREATE UNIQUE INDEX ON domains (lower(host)) INCLUDE (tenant_id) WHERE active;",
            good="CREATE UNIQUE INDEX ON domains (lower(host), tenant_id) WHERE active;",
        ),
        Example(
            setup=_DOMAINS,
            bad="ALTER TABLE domains ADD EXCLUDE USING gist (int4range(1, length(host)) WITH &&);",
            good="ALTER TABLE domains ADD EXCLUDE (tenant_id WITH =, host WITH =);",
        ),
    ),
)
def unique_over_tenants(subject: Subject) -> Iterator[Hit]:
    for relation in guarded(subject):
        found: list[tuple[Unique, Severity, tuple[str, ...]]] = []
        for one in all_of(subject, relation):
            tells = None if scoped(subject, one) else told(subject, one)
            if tells is not None:
                found.append((one, *tells))
        if found:
            yield _hit(subject, relation, found)


def _hit(subject: Subject, relation: Relation, found: list[tuple[Unique, Severity, tuple[str, ...]]]) -> Hit:
    worst = min((severity for _, severity, _ in found), key=SEVERITIES.index)
    loud = [one for one in found if one[1] == worst]
    roles = listed(role for _, _, who in loud for role in who)
    keys = listed(f"{one.name} ({one.said})" for one, _, _ in loud)
    within = listed(scope_columns(subject, relation)) or "a tenant"
    several = len(loud) > 1
    detail = (
        f"{keys} {'hold' if several else 'holds'} over the rows of all tenants and not within {within}: an INSERT or"
        f" UPDATE as {roles} that conflicts tells that another tenant has the value in {relation.qualified}."
    )
    fix = "\n".join(line for one, _, _ in found if not by_design(subject, one) for line in _fix(subject, one))
    if all(by_design(subject, one) for one, _, _ in loud):
        detail += " What people sign in by, or find a tenant by, must be so; let the answer not tell."
    return Hit(relation.qualified, detail, fix, worst, relation=relation.qualified, role=roles)


def _fix(subject: Subject, one: Unique) -> Iterator[str]:
    """The same key with the tenant's columns before it; foreign keys that refer to it are made anew."""
    relation, scope = one.relation, scope_columns(subject, one.relation)
    if not scope:
        return
    before = ", ".join(quote(name) for name in scope)
    bases = {column.base_type for name in scope if (column := relation.column(name))}
    method = one.index.method if one.index is not None else "btree"
    if method == "gist" and bases:
        yield "CREATE EXTENSION IF NOT EXISTS btree_gist;"
    if one.constraint is None:
        assert one.index is not None
        name = free_name(subject, f"{scope[0]}_{one.name}")
        yield f"DROP INDEX {qualified(relation.schema, one.index.name)};"
        definition = _without(one.index.definition, scope)
        definition = re.sub(r"^CREATE UNIQUE INDEX .*? ON ", f"CREATE UNIQUE INDEX {quote(name)} ON ", definition)
        yield re.sub(r"( USING \w+ \()", rf"\g<1>{before}, ", definition, count=1).replace(" ON ONLY ", " ON ") + ";"
        return
    referring = dependants(subject, one.constraint)
    for constraint in referring:
        child = subject.catalog.relation(constraint.relation)
        yield f"ALTER TABLE {child.qualified} DROP CONSTRAINT {quote(constraint.name)};"
    definition = _without(one.constraint.definition, scope)
    put = ", ".join(f"{quote(name)} WITH =" for name in scope) if one.constraint.kind == "exclusion" else before
    definition = definition.replace("(", f"({put}, ", 1)
    name = free_name(subject, f"{scope[0]}_{one.name}")
    yield (
        f"ALTER TABLE {relation.qualified} DROP CONSTRAINT {quote(one.name)},"
        f" ADD CONSTRAINT {quote(name)} {definition};"
    )
    for constraint in referring:
        yield recreated(subject, constraint, scope)


def _without(definition: str, scope: tuple[str, ...]) -> str:
    """The definition without INCLUDE of what becomes a part of the key."""
    found = re.search(r" INCLUDE \((.*?)\)", definition)
    if found is None:
        return definition
    kept = [name for name in found.group(1).split(", ") if name not in {quote(one) for one in scope}]
    return definition.replace(found.group(), f" INCLUDE ({', '.join(kept)})" if kept else "")
