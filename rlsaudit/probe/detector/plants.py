"""Leaks that rlsaudit plants itself into a scratch copy: what each kind changes, how it is undone, what must then be seen.

Pure: a plant is SQL.  Which kinds apply to a cell follows from the catalog; whether one really opens it there is seen
when it is tried (``detector.plant``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

from psycopg import sql

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.policies import settings_read
from rlsaudit.catalog.relations import Command, Policy, Relation
from rlsaudit.finding import Property
from rlsaudit.probe.attacks.sweep import Arena, CellKey
from rlsaudit.probe.ground.statement_text import literal, name, said
from rlsaudit.tenancy.model import ApplicationRole

Kind = Literal[
    "row security off",
    "policies dropped and row security off",
    "USING (true)",
    "WITH CHECK (true)",
    "FORCE off for the owner",
    "BYPASSRLS",
    "definer view",
    "definer function",
    "partition granted",
    "context read as IMMUTABLE",
    "open without context",
    "unique key across tenants",
    "every guard off",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
CLUSTER_WIDE: frozenset[Kind] = frozenset({"BYPASSRLS"})
"""Kinds that change what belongs to the whole cluster, not to the copy."""

Way = Literal["cell", "closed", "carryover", "function"]
"""Which attacks must find it: those of the cell, a broken context, the next tenant's visit, calls."""

SCHEMA = "rlsaudit_plant"
PREPARE = (
    f"CREATE SCHEMA {SCHEMA}",
    f"GRANT USAGE ON SCHEMA {SCHEMA} TO PUBLIC",
    f"CREATE FUNCTION {SCHEMA}.setting(text, boolean DEFAULT false) RETURNS text LANGUAGE sql IMMUTABLE "
    "AS 'SELECT pg_catalog.current_setting($1, $2)'",
    f"GRANT EXECUTE ON FUNCTION {SCHEMA}.setting(text, boolean) TO PUBLIC",
)
"""What plants need; run once in the copy."""
VIEW, FUNCTION = "seen", "found"

_MANY = 100
"""Policies of one relation; changing one takes the server as long as they are many, so that of more only some are."""

_BROKEN: dict[Command, frozenset[Property]] = {
    "SELECT": frozenset({"read"}),
    "INSERT": frozenset({"forge", "write"}),
    "UPDATE": frozenset({"write", "forge"}),
    "DELETE": frozenset({"write"}),
}


@dataclass(frozen=True, slots=True)
class Plant:
    """One leak for one cell."""

    kind: Kind
    cell: CellKey
    made: tuple[str, ...]
    undone: tuple[str, ...]
    expects: frozenset[Property]
    way: Way = "cell"
    relations: tuple[Relation, ...] = ()
    """What to attack in place of the cell's relation."""


def plants(arena: Arena, role: ApplicationRole, relation: Relation, command: Command) -> tuple[Plant, ...]:
    """Every kind that applies to the cell, the plainest first.  None where row security guards nothing."""
    bound = relation.holds_rows and arena.visibility.exempt(role.oid, relation) is None
    if not bound or relation.kind == "foreign table":
        return ()
    cell: CellKey = (relation.oid, role.name, command)
    applying = arena.visibility.policies(role.oid, relation, command)
    return (
        *_switches(arena, role, relation, cell),
        *_policies(relation, cell, applying),
        *(_readings(arena, role, relation, cell, applying) if command == "SELECT" else ()),
        *(_unguarded(arena.catalog, relation, cell) if command != "SELECT" else ()),
    )


def _switches(arena: Arena, role: ApplicationRole, relation: Relation, cell: CellKey) -> Iterator[Plant]:
    """Row security does not bind at all: for nobody, for the owner, for the role."""
    expects = _BROKEN[cell[2]]
    off, on = _alter(relation, "DISABLE ROW LEVEL SECURITY"), _alter(relation, "ENABLE ROW LEVEL SECURITY")
    yield Plant("row security off", cell, (off,), (on,), expects)
    policies = arena.catalog.policies_of(relation.oid)
    if 0 < len(policies) <= _MANY:
        dropped = tuple(said("DROP POLICY {} ON {}", sql.Identifier(p.name), name(relation)) for p in policies)
        created = tuple(_create(arena.catalog, relation, policy) for policy in policies)
        yield Plant("policies dropped and row security off", cell, (off, *dropped), (*created, on), expects)
    if relation.rls_forced and arena.visibility.owns(role.oid, relation.owner):
        bare, forced = (_alter(relation, f"{word}FORCE ROW LEVEL SECURITY") for word in ("NO ", ""))
        yield Plant("FORCE off for the owner", cell, (bare,), (forced,), expects)
    if not arena.tenancy.context.login:
        given, taken = (
            said("ALTER ROLE {} {}", sql.Identifier(role.name), sql.SQL(word)) for word in ("BYPASSRLS", "NOBYPASSRLS")
        )
        yield Plant("BYPASSRLS", cell, (given,), (taken,), expects)


def _policies(relation: Relation, cell: CellKey, applying: tuple[Policy, ...]) -> Iterator[Plant]:
    """The conditions themselves say yes to everything."""
    command = cell[2]
    chosen = _enough(applying)
    if not chosen:
        return
    restored = tuple(_altered(relation, p, p.using, p.check) for p in chosen)
    if command != "INSERT":
        true = tuple(_altered(relation, p, p.using and "true", p.check and "true") for p in chosen)
        yield Plant("USING (true)", cell, true, restored, _BROKEN[command])
    if command == "INSERT":
        true = tuple(_altered(relation, p, None if p.check else "true", p.check and "true") for p in chosen)
        yield Plant("WITH CHECK (true)", cell, true, restored, _BROKEN[command])
    elif command == "UPDATE" and all(p.check for p in applying):
        true = tuple(_altered(relation, p, None, "true") for p in chosen)
        yield Plant("WITH CHECK (true)", cell, true, restored, frozenset({"forge"}))


def _enough(applying: tuple[Policy, ...]) -> tuple[Policy, ...]:
    """As few policies as open a relation when they say yes: a permissive one, where there is one, and every restrictive.

    Not those without any condition, which ALTER POLICY could not give back.
    """
    able = [p for p in applying if p.using or p.check]
    permissive = sorted((p for p in able if p.permissive), key=lambda p: not p.using)[:1]
    return (*permissive, *(p for p in able if not p.permissive)) if permissive else ()


def _readings(
    arena: Arena, role: ApplicationRole, relation: Relation, cell: CellKey, applying: tuple[Policy, ...]
) -> Iterator[Plant]:
    """Ways around the table, and contexts that do not bind."""
    read = frozenset[Property]({"read"})
    columns = [sql.Identifier(c) for c in arena.visibility.columns(role.oid, relation, "SELECT")]
    if columns:
        view, to = sql.Identifier(SCHEMA, VIEW), sql.Identifier(role.name)
        made = (
            said("CREATE VIEW {} AS SELECT {} FROM {}", view, sql.SQL(", ").join(columns), name(relation)),
            said("GRANT SELECT ON {} TO {}", view, to),
        )
        seen = _renamed(relation, VIEW)
        yield Plant("definer view", cell, made, (said("DROP VIEW {}", view),), read, relations=(seen,))
    function = sql.Identifier(SCHEMA, FUNCTION)
    made = (
        said(
            "CREATE FUNCTION {}() RETURNS SETOF {} LANGUAGE sql STABLE SECURITY DEFINER "
            "SET search_path = pg_catalog, pg_temp AS {}",
            function,
            name(relation),
            literal(said("SELECT * FROM {}", name(relation))),
        ),
        said("GRANT EXECUTE ON FUNCTION {}() TO {}", function, sql.Identifier(role.name)),
    )
    yield Plant("definer function", cell, made, (said("DROP FUNCTION {}()", function),), read, "function")
    yield from _partitions(arena, role, relation, cell)
    yield from _contexts(arena, relation, cell, applying)


def _partitions(arena: Arena, role: ApplicationRole, relation: Relation, cell: CellKey) -> Iterator[Plant]:
    leaves = [
        leaf
        for leaf in _leaves(arena.catalog, relation)
        if not arena.visibility.may(role.oid, leaf, "SELECT") and arena.visibility.may_use_schema(role.oid, leaf.schema)
    ][:64]
    if relation.kind != "partitioned table" or not leaves:
        return
    to = sql.Identifier(role.name)
    guarded = [leaf for leaf in leaves if leaf.rls_enabled]
    made = (
        *(said("GRANT SELECT ON {} TO {}", name(leaf), to) for leaf in leaves),
        *(_alter(leaf, "DISABLE ROW LEVEL SECURITY") for leaf in guarded),
    )
    undone = (
        *(said("REVOKE SELECT ON {} FROM {}", name(leaf), to) for leaf in leaves),
        *(_alter(leaf, "ENABLE ROW LEVEL SECURITY") for leaf in guarded),
    )
    yield Plant("partition granted", cell, made, undone, frozenset({"read"}), relations=tuple(leaves))


def _contexts(arena: Arena, relation: Relation, cell: CellKey, applying: tuple[Policy, ...]) -> Iterator[Plant]:
    constant = _constant(arena.catalog, applying)
    inline = [p for p in applying if "current_setting(" in (p.using or "")][:_MANY]
    if constant:
        made, undone = zip(*constant, strict=True)
        yield Plant("context read as IMMUTABLE", cell, made, undone, frozenset({"carryover"}), "carryover")
    elif inline:
        folded = tuple(
            _altered(relation, p, (p.using or "").replace("current_setting(", f"{SCHEMA}.setting("), None)
            for p in inline
        )
        restored = tuple(_altered(relation, p, p.using, p.check) for p in inline)
        yield Plant("context read as IMMUTABLE", cell, folded, restored, frozenset({"carryover"}), "carryover")
    unset = [
        said("COALESCE(pg_catalog.current_setting({}, true), '') = ''", literal(one))
        for one in arena.tenancy.context.settings
    ]
    first = next((p for p in applying if p.permissive and p.using), None)
    if unset and first:
        opened = _altered(relation, first, f"({first.using}) OR ({' AND '.join(unset)})", None)
        closed = _altered(relation, first, first.using, first.check)
        yield Plant("open without context", cell, (opened,), (closed,), frozenset({"closed"}), "closed")


def _constant(catalog: Catalog, applying: Iterable[Policy]) -> list[tuple[str, str]]:
    """(statement, its undoing) for each function by which the policies read the context."""
    called = {oid for policy in applying for oid in catalog.mentions("policy", policy.oid, "function")}
    found = []
    for oid in sorted(called):
        function = catalog.function(oid)
        if function is not None and function.volatility != "immutable" and settings_read(catalog, oid):
            alter = f"ALTER FUNCTION {function.signature}"
            found.append((f"{alter} IMMUTABLE", f"{alter} {function.volatility.upper()}"))
    return found


def _unguarded(catalog: Catalog, relation: Relation, cell: CellKey) -> Iterator[Plant]:
    """Triggers and CHECKs may refuse what policies would: all of them off, so that the attack itself is seen to work."""
    triggers = [t for t in catalog.triggers_of(relation.oid) if t.enabled in ("origin", "always")]
    checks = [c for c in catalog.constraints_of(relation.oid) if c.kind == "check" and not relation.is_partition]
    if not triggers and not checks:
        return
    word = {"origin": "ENABLE", "always": "ENABLE ALWAYS"}
    made = [_alter(relation, "DISABLE ROW LEVEL SECURITY")]
    undone = [_alter(relation, "ENABLE ROW LEVEL SECURITY")]
    for trigger in triggers:
        made.append(_alter(relation, "DISABLE TRIGGER", trigger.name))
        undone.append(_alter(relation, f"{word[trigger.enabled]} TRIGGER", trigger.name))
    for check in checks:
        made.append(_alter(relation, "DROP CONSTRAINT", check.name))
        # The rows stand already, and a CHECK may read a context that this session does not have.
        late = "" if check.definition.endswith(("NOT VALID", "NOT ENFORCED")) else " NOT VALID"
        undone.append(f"{_alter(relation, 'ADD CONSTRAINT', check.name)} {check.definition}{late}")
    yield Plant("every guard off", cell, tuple(made), tuple(undone), _BROKEN[cell[2]])


def _leaves(catalog: Catalog, relation: Relation) -> Iterator[Relation]:
    for child in catalog.children_of(relation.oid):
        if child.is_partition:
            yield from (child,) if child.kind == "table" else _leaves(catalog, child)


def _renamed(relation: Relation, named: str) -> Relation:
    """The relation under the name of what stands before it; its OID still says what the rows are."""
    return replace(relation, schema=SCHEMA, name=named, kind="view")


def _alter(relation: Relation, action: str, object_: str | None = None) -> str:
    target = sql.SQL(" {}").format(sql.Identifier(object_)) if object_ is not None else sql.SQL("")
    return said("ALTER TABLE {} {}{}", name(relation), sql.SQL(action), target)


def _altered(relation: Relation, policy: Policy, using: str | None, check: str | None) -> str:
    head = said("ALTER POLICY {} ON {}", sql.Identifier(policy.name), name(relation))
    return head + (f" USING ({using})" if using else "") + (f" WITH CHECK ({check})" if check else "")


def _create(catalog: Catalog, relation: Relation, policy: Policy) -> str:
    roles = sql.SQL(", ").join(
        sql.SQL("PUBLIC") if oid == 0 else sql.Identifier(catalog.role_name(oid)) for oid in policy.roles
    )
    kind = sql.SQL("PERMISSIVE" if policy.permissive else "RESTRICTIVE")
    given = (sql.Identifier(policy.name), name(relation), kind, sql.SQL(policy.command), roles)
    head = said("CREATE POLICY {} ON {} AS {} FOR {} TO {}", *given)
    using, check = policy.using, policy.check
    return head + (f" USING ({using})" if using else "") + (f" WITH CHECK ({check})" if check else "")
