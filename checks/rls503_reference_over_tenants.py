"""Foreign keys through which rows of one tenant refer to another's."""

from collections.abc import Iterator
from dataclasses import dataclass

from rlsaudit.checks._examples import TENANT
from rlsaudit.checks._fixes import listed, several
from rlsaudit.checks._guarded import guarded
from rlsaudit.checks._keys import foreign_keys, guess, keyed, names, read_by_all, writers
from rlsaudit.checks._references import added, pairs, shared, target_key, tied, tied_elsewhere, verified

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.policies import check_predicate
from rlsaudit.catalog.relations import Constraint, Relation
from rlsaudit.check import Example, Hit, Subject, check, quote
from rlsaudit.finding import SEVERITIES, Severity

_BOARDS = f"""\
CREATE ROLE app LOGIN;
CREATE TABLE boards (id int PRIMARY KEY, tenant_id int NOT NULL, title text);
ALTER TABLE boards ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON boards USING ({TENANT});
CREATE TABLE cards (id int PRIMARY KEY, tenant_id int NOT NULL, board_id int, n int);
ALTER TABLE cards ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON boards, cards TO app;
"""
_POLICY = f"CREATE POLICY tenant ON cards USING ({TENANT});\n"


@dataclass(frozen=True)
class _Loose:
    constraint: Constraint
    parent: Relation
    severity: Severity
    roles: tuple[str, ...]
    prints: str
    """The action whose failure prints the other tenant's row; empty for none."""


@dataclass(frozen=True)
class _Relation:
    """A relation with such foreign keys; ``loud``: the worst of them."""

    relation: Relation
    found: list[_Loose]
    loud: list[_Loose]


@check(
    "RLS503",
    title="A foreign key may refer to another tenant's row",
    severity="medium",
    rationale=(
        "Foreign keys are checked and cascade with the rights of the tables' owner, past every policy. One without the"
        " tenant key accepts ids of other tenants: that tells which exist, ties rows of two tenants together, and"
        " CASCADE or SET NULL then reach from one tenant's statement into the other's rows."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-4", "CWE-639"),
    examples=(
        Example(
            setup=_BOARDS + _POLICY,
            bad="ALTER TABLE cards ADD FOREIGN KEY (board_id) REFERENCES boards (id) ON DELETE SET NULL;",
            good=(
                "ALTER TABLE boards ADD UNIQUE (tenant_id, id);\n"
                "ALTER TABLE cards ADD FOREIGN KEY (tenant_id, board_id) REFERENCES boards (tenant_id, id);"
            ),
        ),
        Example(
            setup=_BOARDS + "ALTER TABLE cards ADD FOREIGN KEY (board_id) REFERENCES boards (id) ON UPDATE CASCADE;\n",
            bad=_POLICY + "ALTER TABLE cards ADD CHECK (board_id < 1000);",
            good=(
                f"CREATE POLICY tenant ON cards USING ({TENANT}) WITH CHECK ({TENANT}\n"
                "  AND (board_id IS NULL OR EXISTS (SELECT FROM boards b WHERE b.id = board_id)));"
            ),
        ),
    ),
)
def reference_over_tenants(subject: Subject) -> Iterator[Hit]:
    # A schema whose foreign keys go by id alone has one cause, not one finding for each of its tables.
    alike: dict[tuple[Severity, str], list[_Relation]] = {}
    for relation in guarded(subject):
        if not keyed(subject, relation.oid):
            continue
        found = [one for constraint in foreign_keys(subject, relation) for one in _loose(subject, relation, constraint)]
        if found:
            worst = min((one.severity for one in found), key=SEVERITIES.index)
            loud = [one for one in found if one.severity == worst]
            roles = listed(role for one in loud for role in one.roles)
            alike.setdefault((worst, roles), []).append(_Relation(relation, found, loud))
    for (severity, roles), group in alike.items():
        yield _hit(subject, severity, roles, group)


def _loose(subject: Subject, relation: Relation, constraint: Constraint) -> Iterator[_Loose]:
    parent = subject.catalog.find_relation(constraint.referenced)
    if parent is None or not _between_tenants(subject, relation, parent, constraint):
        return
    columns = set(names(relation, constraint.columns))
    roles = [
        writer.role
        for writer in writers(subject, relation)
        if columns & writer.columns
        and subject.visibility.exempt(writer.role.oid, parent) is None
        and not read_by_all(subject, parent, writer.role.oid)
        and not verified(subject, writer, constraint)
    ]
    if not roles:
        return
    prints = _prints(subject, relation, parent, constraint, {role.oid for role in roles})
    if _known(subject, parent, constraint):
        severity: Severity = "high" if prints else "medium"
    else:
        severity = "low"
    yield _Loose(constraint, parent, severity, tuple(dict.fromkeys(role.name for role in roles)), prints)


def _between_tenants(subject: Subject, relation: Relation, parent: Relation, constraint: Constraint) -> bool:
    """Whether both ends belong to tenants and nothing ties them to the same one."""
    classified, other = subject.tenancy.of(relation.oid), subject.tenancy.of(parent.oid)
    if not keyed(subject, parent.oid) or other.kind == "registry" or not parent.rls_enabled or not constraint.enforced:
        return False
    if any(step.constraint == constraint.oid for step in classified.path[:1]):
        return False
    if not other.path and names(parent, constraint.referenced_columns) == (other.key,):
        return False  # it names a tenant, not a row of one
    if relation.is_partition and _inherited(subject, relation, constraint):
        return False
    return not tied(subject, constraint) and not tied_elsewhere(subject, constraint)


def _inherited(subject: Subject, relation: Relation, constraint: Constraint) -> bool:
    own = names(relation, constraint.columns)
    parents = (subject.catalog.find_relation(oid) for oid in relation.parents)
    return any(
        other.referenced == constraint.referenced and names(parent, other.columns) == own
        for parent in parents
        if parent is not None
        for other in foreign_keys(subject, parent)
    )


def _known(subject: Subject, parent: Relation, constraint: Constraint) -> bool:
    """Whether ids of the parent's rows can be guessed."""
    columns = (parent.column_number(number) for number in constraint.referenced_columns)
    kinds = {guess(subject, parent, column) for column in columns if column is not None}
    return not kinds & {"random", "foreign"}


def _prints(subject: Subject, relation: Relation, parent: Relation, constraint: Constraint, roles: set[int]) -> str:
    """The referential action that changes a row so that a constraint may refuse it, and print it, for a role that can
    set it off."""
    columns = set(names(relation, constraint.columns))
    for said, action, command in (
        ("ON UPDATE", constraint.on_update, "UPDATE"),
        ("ON DELETE", constraint.on_delete, "DELETE"),
    ):
        if action not in ("SET NULL", "SET DEFAULT") and (action != "CASCADE" or command == "DELETE"):
            continue
        keys = set(names(parent, constraint.referenced_columns))
        able = any(
            subject.visibility.may(role, parent, command)
            and subject.visibility.policies(role, parent, "UPDATE" if command == "UPDATE" else "DELETE")
            and (command == "DELETE" or keys & set(subject.visibility.columns(role, parent, command)))
            for role in roles
        )
        if able and (refuses := _refuses(subject, relation, columns, empties=action == "SET NULL")):
            return f"{said} {action} and {refuses}"
    return ""


def _refuses(subject: Subject, relation: Relation, columns: set[str], *, empties: bool) -> str:
    """What may refuse the value that the action writes: the constraint's name, NOT NULL or a domain."""
    for name in sorted(columns):
        column = relation.column(name)
        if column is not None and empties and column.not_null:
            return f"NOT NULL of {name}"
        if column is not None and not empties and column.domain_checks:
            return f"the domain of {name}"
    for constraint in subject.catalog.constraints_of(relation.oid):
        predicate = check_predicate(subject.catalog, constraint)
        if predicate is None or not constraint.enforced or not e.columns(predicate) & columns:
            continue
        tests_null = any(isinstance(p, (e.NullTest, e.Coalesce, e.Call, e.Distinct, e.Case)) for p in e.walk(predicate))
        if not empties or tests_null:
            return f"the constraint {constraint.name}"
    return ""


def _hit(subject: Subject, severity: Severity, roles: str, group: list[_Relation]) -> Hit:
    first, loud = group[0].relation, [one for placed in group for one in placed.loud]
    which = several(
        f"{one.constraint.name}{f' of {placed.relation.qualified}' if len(group) > 1 else ''}"
        f" ({', '.join(names(placed.relation, one.constraint.columns))} → {one.parent.qualified})"
        for placed in group
        for one in placed.loud
    )
    where = several(placed.relation.qualified for placed in group)
    detail = (
        f"{which} {'do' if len(loud) > 1 else 'does'} not hold both ends to one tenant: {roles} can make rows of"
        f" {where} refer to another tenant's rows"
    )
    detail += ", whose ids cannot be guessed." if severity == "low" else ", and learn which ids exist."
    reach = next((one for one in loud if one.prints), None)
    if reach is not None:
        detail += f" When {reach.prints} collide in another tenant's row, the error prints that row."
    else:
        written = listed(sorted({a for one in loud for a in _reaching(one.constraint)}))
        detail += f" {written} then reaches into the other tenant's rows." if written else ""
    lines = (line for placed in group for one in placed.found for line in _fix(subject, placed.relation, one))
    return Hit(first.qualified, detail, "\n".join(dict.fromkeys(lines)), severity, relation=first.qualified, role=roles)


def _reaching(constraint: Constraint) -> Iterator[str]:
    for said, action in (("ON DELETE", constraint.on_delete), ("ON UPDATE", constraint.on_update)):
        if action in ("CASCADE", "SET NULL", "SET DEFAULT"):
            yield f"{said} {action}"


def _fix(subject: Subject, relation: Relation, one: _Loose) -> Iterator[str]:
    """A foreign key over the tenant key as well, or policies that look at the referred row."""
    both = shared(subject, one.constraint)
    if both:
        every = (*both, *(pair for pair in pairs(subject, one.constraint) if pair not in both))
        target = target_key(subject, one.parent, tuple(theirs for _, theirs in every))
        if target is not None:
            yield target
        yield f"ALTER TABLE {relation.qualified} DROP CONSTRAINT {quote(one.constraint.name)};"
        yield added(subject, one.constraint, both)
        return
    joined = " AND ".join(
        f"parent.{quote(theirs)} = {relation.qualified}.{quote(ours)}"
        for ours, theirs in pairs(subject, one.constraint)
    )
    empty = " OR ".join(f"{quote(ours)} IS NULL" for ours, _ in pairs(subject, one.constraint))
    taken = {policy.name for policy in subject.catalog.policies_of(relation.oid)}
    for command in ("INSERT", "UPDATE"):
        name = f"{one.constraint.name}_{command.lower()}"[:60]
        while name in taken:
            name += "_2"
        yield (
            f"CREATE POLICY {quote(name)} ON {relation.qualified} AS RESTRICTIVE FOR {command}"
            f" WITH CHECK ({empty} OR EXISTS (SELECT FROM {one.parent.qualified} AS parent WHERE {joined}));"
        )
