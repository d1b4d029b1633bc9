"""Rows that name a second tenant, and what that one may do with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rlsaudit.checks._fixes import in_order, listed, policy_name, revoke, several, tenant_predicate
from rlsaudit.checks._openings import loose_writes, tenant_settings
from rlsaudit.checks._reading import Shape, Use, one_of_each_reading, uses
from rlsaudit.checks._trust import Trusted, trusted

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.outcome import Way
from rlsaudit.catalog.policies import settings
from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Example, Hit, Subject, check, kept, quote
from rlsaudit.finding import SEVERITIES, Severity
from rlsaudit.tenancy import words

_DOCUMENTS = """\
CREATE ROLE app LOGIN;
CREATE FUNCTION tenant() RETURNS int LANGUAGE sql STABLE
  AS $$ SELECT NULLIF(current_setting('app.tenant_id', true), '')::int $$;
CREATE TABLE documents (id int PRIMARY KEY, tenant_id int NOT NULL, shared_with int, body text);
CREATE TABLE notes (id int PRIMARY KEY, tenant_id int NOT NULL);
ALTER TABLE documents ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON notes USING (tenant_id = tenant());
GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO app;
"""
_DEALS = """\
CREATE ROLE app LOGIN;
CREATE FUNCTION tenant() RETURNS int LANGUAGE sql STABLE
  AS $$ SELECT NULLIF(current_setting('app.tenant_id', true), '')::int $$;
CREATE TABLE tenants (id int PRIMARY KEY);
CREATE TABLE deals (buyer int NOT NULL REFERENCES tenants, seller int NOT NULL REFERENCES tenants, price int);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE deals ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY self ON tenants USING (id = tenant());
CREATE POLICY parties ON deals FOR SELECT USING (tenant() IN (buyer, seller));
CREATE POLICY sells ON deals FOR INSERT WITH CHECK (seller = tenant());
CREATE POLICY sells_changes ON deals FOR UPDATE USING (seller = tenant());
CREATE POLICY buys_changes ON deals FOR UPDATE USING (buyer = tenant()) WITH CHECK (buyer = tenant() AND price > 0);
GRANT SELECT ON tenants TO app;
"""
_SHARES = """\
CREATE ROLE app LOGIN;
CREATE FUNCTION tenant() RETURNS int LANGUAGE sql STABLE
  AS $$ SELECT NULLIF(current_setting('app.tenant_id', true), '')::int $$;
CREATE TABLE documents (id int PRIMARY KEY, tenant_id int NOT NULL, body text, UNIQUE (tenant_id, id));
CREATE TABLE shares (tenant_id int NOT NULL, document_id int NOT NULL, shared_with int NOT NULL,
  FOREIGN KEY (tenant_id, document_id) REFERENCES documents (tenant_id, id));
ALTER TABLE documents ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE shares ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON documents USING (tenant_id = tenant());
CREATE POLICY tenant ON shares USING (tenant_id = tenant());
CREATE POLICY shared ON shares FOR SELECT USING (shared_with = tenant());
GRANT SELECT, INSERT, UPDATE, DELETE ON documents TO app;
GRANT SELECT, INSERT, DELETE ON shares TO app;
"""
_SHARED = "USING (id IN (SELECT document_id FROM shares WHERE shared_with = tenant()));"


@dataclass(frozen=True)
class _Power:
    """What a tenant that ``column`` names may do."""

    use: Use
    column: str
    severity: Severity
    what: str
    frozen: frozenset[str] = frozenset()
    """Columns that must not be updated."""


@check(
    "RLS114",
    title="A second tenant of a row may take it over",
    severity="high",
    rationale=(
        "Letting a row name a second tenant (a delegate, a buyer, shared_with) is a choice to share it. Row security"
        " cannot freeze a column: where the second tenant may UPDATE the row, it can also set the tenant key to itself,"
        " or the name of the other party to somebody else, unless it lacks the privilege on those columns. And a policy"
        " that shares rows without naming a command lets the second tenant change and delete them as well."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-639"),
    examples=(
        Example(
            setup=_DOCUMENTS
            + "CREATE POLICY tenant ON documents USING (tenant_id = tenant() OR shared_with = tenant())\n"
            "  WITH CHECK (tenant_id = tenant());\n",
            bad="GRANT SELECT, INSERT, UPDATE ON documents TO app;",
            good="GRANT SELECT, INSERT, UPDATE (body) ON documents TO app;",
        ),
        Example(
            setup=_DEALS,
            bad="GRANT SELECT, INSERT, UPDATE ON deals TO app;",
            good="GRANT SELECT, INSERT, UPDATE (price) ON deals TO app;",
        ),
        Example(
            setup=_SHARES,
            bad=f"CREATE POLICY shared ON documents {_SHARED}",
            good=f"CREATE POLICY shared ON documents FOR SELECT {_SHARED}",
        ),
    ),
)
def second_party(subject: Subject) -> Iterator[Hit]:
    found: dict[int, list[_Power]] = {}
    grouped: dict[tuple[int, int], list[Use]] = {}
    several_parties = {
        use.relation.oid
        for use in one_of_each_reading(subject)
        if use.place.parties
        or "party" in use.reading.shape.kinds
        or (_could_give(subject, use.reading.shape) and any(_takers(subject, way) for way, _ in use.reaches))
    }
    for use in uses(subject) if several_parties else ():
        if use.relation.oid in several_parties and use.place.key is not None and use.classified.kind == "tenant":
            grouped.setdefault((use.relation.oid, use.role.oid), []).append(use)
    moved = {one.use.relation.oid for one in loose_writes(subject, "UPDATE")} if grouped else set()
    for (oid, _), group in grouped.items():
        for power in (*_powers(subject, group), *_shared(subject, group)):
            if power.use.command != "UPDATE" or oid not in moved:
                found.setdefault(oid, []).append(power)
    for oid, powers in found.items():
        yield _hit(subject, subject.catalog.relation(oid), powers)


def _powers(subject: Subject, group: list[Use]) -> Iterator[_Power]:
    """``group``: one relation and role."""
    parties = [(use, columns) for use in group if use.side == "old" for columns in _named(subject, use)]
    if not parties:
        return
    relation, role, key = group[0].relation, group[0].role, group[0].place.key or ""
    writable = set(subject.visibility.columns(role.oid, relation, "UPDATE"))
    changed = [use for use in group if use.side == "new" and use.command == "UPDATE"]
    results = [reach.columns for use in changed for _, reach in use.reading.reaches]
    parties_of_row = group[0].place.parties
    changing = {name for use, columns in parties if use.command == "UPDATE" for name in columns & parties_of_row}
    for use, columns in parties:
        name = min(columns)
        if use.command == "UPDATE":
            if own := _taken((parties_of_row | {key}) & writable, columns, results):
                yield _Power(use, name, "high", f"take it over by setting {listed(own)}", frozenset(own))
            elif len(changing) > 1 and (other := _replaceable(parties_of_row & writable, columns, results)):
                yield _Power(use, name, "medium", f"replace {listed(other)}, the other party", frozenset(other))
        if use.command == "DELETE" and not columns & parties_of_row:
            yield _Power(use, name, _meant(use), "delete it")
        if use.command == "SELECT":
            yield _Power(use, name, "info", "read it")


def _meant(use: Use) -> Severity:
    """A policy for every command as a rule means the owner's powers; one for this command alone says what it means."""
    return "medium" if use.policy.command == "ALL" else "low"


def _shared(subject: Subject, group: list[Use]) -> Iterator[_Power]:
    """What a tenant may do to rows that a table of shares or delegations names it for."""
    for use in group:
        key = use.relation.column(use.place.key or "")
        if use.side != "old" or use.command not in ("UPDATE", "DELETE") or key is None:
            continue
        if use.command == "UPDATE" and key.name not in subject.visibility.columns(use.role.oid, use.relation, "UPDATE"):
            continue
        for way, reach in use.reaches:
            for name, kind in _takers(subject, way) if key.name not in reach.columns else ():
                if kind == key.base_type:
                    yield _Power(use, name, _meant(use), "delete it" if use.command == "DELETE" else "change it")


@kept
def _known_givers(subject: Subject) -> dict[Shape, bool]:
    return {}


def _could_give(subject: Subject, shape: Shape) -> bool:
    """Whether ``_takers`` may find some in a reading of this shape, whichever relations that one reads."""
    known = _known_givers(subject)
    if shape not in known:
        known[shape] = any(
            one.links and one.anchors
            for way, _ in shape.example.reaches
            for condition in way
            if condition.value is True
            for one in trusted(subject, condition.atom)
        )
    return known[shape]


@kept
def _known_takers(subject: Subject) -> dict[Way, tuple[tuple[str, str], ...]]:
    return {}


def _takers(subject: Subject, way: Way) -> tuple[tuple[str, str], ...]:
    """Columns, with their types, of tables that the way reads and that say to whom a tenant gives something."""
    known = _known_takers(subject)
    if way not in known:
        read = [one for condition in way if condition.value is True for one in trusted(subject, condition.atom)]
        known[way] = tuple(found for one in read for found in _names(subject, one))
    return known[way]


def _names(subject: Subject, read: Trusted) -> Iterator[tuple[str, str]]:
    relation, classified = subject.catalog.relation(read.relation), subject.tenancy.of(read.relation)
    if not read.links or classified.kind != "tenant" or classified.path or classified.key in read.anchors:
        return
    for name in sorted(read.anchors - set(subject.tenancy.principal_columns.get(relation.oid, ()))):
        column = relation.column(name)
        if column is not None and not words.user_like(name):
            yield f"{relation.qualified}.{name}", column.base_type


def _named(subject: Subject, use: Use) -> Iterator[frozenset[str]]:
    """For each way that holds a column other than the key against the session's tenant: those columns."""
    several = use.place.parties
    if not several and all(reach.kind != "party" for _, reach in use.reading.reaches):
        return
    key = use.relation.column(use.place.key or "")
    tenant = {
        one.column.name
        for one in e.comparisons(use.predicate)
        if settings(one.other, subject.catalog) & tenant_settings(subject)
        and one.column.name not in use.place.principals
        and (key is None or one.column.type == key.base_type)
    }
    for _, reach in use.reading.reaches:
        held = reach.columns & tenant
        if held and (reach.kind == "party" or (held & several and several - held)):
            yield held


def _taken(names: frozenset[str] | set[str], old: frozenset[str], results: list[frozenset[str]]) -> list[str]:
    """Columns that name the owner or a party, which the old row was not held by and the new one alone is held by."""
    return sorted(name for name in names - old if any(name in new and not new & old for new in results))


def _replaceable(others: frozenset[str] | set[str], old: frozenset[str], results: list[frozenset[str]]) -> list[str]:
    """Parties that neither the old nor the new row is held by."""
    return sorted(name for name in others - old if any(old & new and name not in new for new in results))


def _hit(subject: Subject, relation: Relation, powers: list[_Power]) -> Hit:
    rank = min(SEVERITIES.index(one.severity) for one in powers)
    worst = [one for one in powers if SEVERITIES.index(one.severity) == rank]
    policies = several(policy_name(one.use.policy, relation) for one in worst)
    roles = list(dict.fromkeys((one.use.role.oid, one.use.role.name) for one in worst))
    what = listed(one.what for one in worst)
    named = listed(one.column if "." in one.column else f"{one.column} of {relation.qualified}" for one in worst)
    detail = f"{policies}: a tenant that {named} names may {what}"
    detail += "." if rank <= SEVERITIES.index("medium") else "; whether that is meant is for you to say."
    return Hit(
        relation.qualified,
        detail,
        _fix(subject, relation, roles, worst),
        worst[0].severity,
        relation=relation.qualified,
        command=listed(one.use.command for one in worst),
        role=listed(name for _, name in roles),
    )


def _fix(subject: Subject, relation: Relation, roles: list[tuple[int, str]], worst: list[_Power]) -> str:
    frozen = frozenset[str]().union(*(one.frozen for one in worst))
    lines = []
    for oid, name in roles if frozen else ():
        kept = [column for column in subject.visibility.columns(oid, relation, "UPDATE") if column not in frozen]
        lines.append(revoke(subject, relation, oid, ("UPDATE",)))
        if kept:
            lines.append(
                f"GRANT UPDATE ({', '.join(map(quote, kept))}) ON TABLE {relation.qualified} TO {quote(name)};"
            )
    predicate = tenant_predicate(subject, relation, subject.tenancy.of(relation.oid))
    for command in in_order({one.use.command for one in worst if one.what in ("delete it", "change it")}):
        if predicate is not None:
            lines.append(
                f"CREATE POLICY owner_{command.lower()}s ON {relation.qualified} AS RESTRICTIVE FOR {command}"
                f" USING ({predicate});"
            )
    return "\n".join(lines)
