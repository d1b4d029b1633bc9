"""Does each tenant see its own rows?  Where policies go through memberships, roles and states, change those until it does.

Only rows' values are changed, one column at a time, and only what makes a relation visible that was not is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import psycopg
from psycopg import sql

from rlsaudit.catalog.expression import Cast, Compare, Constant, Expression, Json, walk
from rlsaudit.catalog.expression import Column as Column_
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.catalog.relations import Column, Relation
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.probe.ground import ownership
from rlsaudit.probe.ground.statement_text import acting, literal, name, text
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.probe.seeding import plan, values
from rlsaudit.probe.seeding.supply import Supply
from rlsaudit.probe.seeding.writer import Connection, Refusal, Writer
from rlsaudit.tenancy.model import Persona, Tenancy

_ROLES, _PERSONAS = 2, 4
_SINGLE, _PAIRS = 60, 90
"""Changes tried for one relation, alone and two at a time."""
_VALUES = 8


@dataclass(frozen=True, slots=True)
class _Change:
    relation: Relation
    column: str
    value: str | None


class Sight:
    """Looks at the seeded rows through the application roles' eyes, within the seeder's transaction."""

    def __init__(
        self,
        connection: Connection,
        writer: Writer,
        catalog: Catalog,
        tenancy: Tenancy,
        tenants: tuple[Tenant, ...],
        supply: Supply,
    ) -> None:
        self._connection = connection
        self._writer = writer
        self._catalog = catalog
        self._tenancy = tenancy
        self._tenants = tenants
        self._supply = supply
        self._visibility = visibility_of(catalog)
        self._named = {relation.name: relation for relation in catalog.relations if relation.holds_rows}

    def clear(self, order: Iterable[Relation], filled: Callable[[Relation, Tenant], bool]) -> frozenset[int]:
        """Make what is ``filled`` visible where a change of values can; OIDs of the relations that were changed."""
        wanted = [relation for relation in order if self._guarded(relation)]
        changed: set[int] = set()
        learned: list[_Change] = []
        for tenant in self._tenants:
            mine = [relation for relation in wanted if filled(relation, tenant)]
            seen = self._seen(tenant, mine)
            for relation in [one for one in mine if one.oid not in seen]:
                if relation.oid in seen:
                    continue
                for changes in self._proposed(relation, learned):
                    if self._helps(changes, tenant, relation, mine, seen):
                        learned += [one for one in changes if one not in learned]
                        changed |= {one.relation.oid for one in changes}
                        seen = self._seen(tenant, mine)
                        break
                else:
                    # The next tenants would fare no better.
                    wanted.remove(relation)
        return frozenset(changed)

    def _guarded(self, relation: Relation) -> bool:
        """Whether policies, and not their absence, decide on what a role that may read sees."""
        return (
            relation.rls_enabled
            and self._tenancy.of(relation.oid).tenant_data
            and any(
                self._visibility.may(role.oid, relation, "SELECT")
                and any(p.permissive for p in self._visibility.policies(role.oid, relation, "SELECT"))
                for role in self._tenancy.roles[:_ROLES]
            )
        )

    # Looking ---------------------------------------------------------------------------------------------------------

    def _seen(self, tenant: Tenant, relations: Sequence[Relation]) -> set[int]:
        """Relations in which some role and persona of the tenant sees one of its own rows."""
        found: set[int] = set()
        for role in self._tenancy.roles[:_ROLES]:
            readable = [relation for relation in relations if self._visibility.may(role.oid, relation, "SELECT")]
            for persona in self._tenancy.context.personas[:_PERSONAS]:
                left = [relation for relation in readable if relation.oid not in found]
                found |= self._look(role.name, persona, tenant, left) if left else set()
        return found

    def _look(self, role: str, persona: Persona, tenant: Tenant, relations: Sequence[Relation]) -> set[int]:
        counted = sql.SQL(", ").join(sql.SQL("EXISTS (SELECT FROM {})").format(name(one)) for one in relations)
        query = sql.SQL("SELECT ARRAY[{}]").format(counted)
        become = "" if persona.login else text(sql.SQL("SET LOCAL ROLE {}; ").format(sql.Identifier(role)))
        acts = "".join(f"{one.rstrip('; ')}; " for one in acting(persona, tenant.key, tenant.user))
        try:
            with self._connection.transaction(force_rollback=True):
                self._connection.execute((become + acts).encode() or b"SELECT")
                row = self._connection.execute(query).fetchone()
        except psycopg.Error:
            if len(relations) == 1:
                return set()
            # One of them fails, with an endless recursion, say: look at each by itself.
            half = len(relations) // 2
            return self._look(role, persona, tenant, relations[:half]) | self._look(
                role, persona, tenant, relations[half:]
            )
        flags = row[0] if row and isinstance(row[0], list) else []
        return {relation.oid for relation, flag in zip(relations, flags, strict=False) if flag}

    # Changing --------------------------------------------------------------------------------------------------------

    def _helps(
        self, changes: Sequence[_Change], tenant: Tenant, aim: Relation, relations: Sequence[Relation], before: set[int]
    ) -> bool:
        """Make the changes; take them back unless the relation can be seen now and no other is lost."""
        self._connection.execute("SAVEPOINT rlsaudit_sight")
        good = all(self._apply(change, tenant) for change in changes)
        if good and aim.oid in self._seen(tenant, [aim]) and before <= self._seen(tenant, relations):
            self._connection.execute("RELEASE SAVEPOINT rlsaudit_sight")
            return True
        self._connection.execute("ROLLBACK TO SAVEPOINT rlsaudit_sight")
        self._connection.execute("RELEASE SAVEPOINT rlsaudit_sight")
        return False

    def _apply(self, change: _Change, tenant: Tenant) -> bool:
        relation = change.relation
        condition: sql.Composable = sql.SQL("true")
        if self._tenancy.of(relation.oid).tenant_data:
            owner = ownership.owner(self._catalog, self._tenancy.of(relation.oid), self._tenants)
            condition = sql.SQL("{} = {}").format(owner, sql.Literal(tenant.key))
        statement = sql.SQL("UPDATE {} AS t SET {} = {} WHERE {}").format(
            name(relation), sql.Identifier(change.column), literal(change.value), condition
        )
        return not isinstance(self._writer.run(text(statement), tenant, keep=True), Refusal)

    def _proposed(self, aim: Relation, learned: Sequence[_Change]) -> Iterator[tuple[_Change, ...]]:
        near = list(self._deciding(aim))
        known = tuple(one for one in learned if one.relation in near)
        if known:
            yield known
            yield from ((one,) for one in known)
        single = [change for relation in near for change in self._changes(relation)][:_SINGLE]
        yield from ((change,) for change in single)
        pairs = (pair for pair in combinations(single, 2) if pair[0].column != pair[1].column)
        yield from (pair for _, pair in zip(range(_PAIRS), pairs, strict=False))

    def _deciding(self, aim: Relation) -> Iterator[Relation]:
        """The relation itself and those that its policies read, also through functions and other policies."""
        catalog, done = self._catalog, {aim.oid}
        queue = [aim]
        while queue:
            relation = queue.pop(0)
            yield relation
            read: list[Relation] = []
            for policy in catalog.policies_of(relation.oid):
                read += [
                    r for oid in catalog.mentions("policy", policy.oid, "relation") if (r := catalog.find_relation(oid))
                ]
                for oid in catalog.mentions("policy", policy.oid, "function"):
                    function = catalog.function(oid)
                    words = re.findall(r"\w+", function.source) if function is not None else ()
                    read += [self._named[word] for word in words if word in self._named]
            for other in read:
                if other.oid not in done and other.kind in ("table", "partitioned table"):
                    done.add(other.oid)
                    queue.append(other)

    def _changes(self, relation: Relation) -> Iterator[_Change]:
        """Other values for columns that say what a row is worth: roles, states, flags, ends, references to shared rows."""
        classified = self._tenancy.of(relation.oid)
        if not classified.tenant_data:
            return
        fixed = {classified.key, *self._tenancy.principal_columns.get(relation.oid, ())}
        for constraint in plan.foreign_keys(self._catalog, relation):
            pairs = plan.column_pairs(self._catalog, constraint)
            parent = self._catalog.find_relation(constraint.referenced)
            if parent is not None and len(pairs) == 1 and not self._tenancy.of(parent.oid).tenant_data:
                yield from (_Change(relation, pairs[0][0], value) for value in self._keys(parent, pairs[0][1]))
            fixed |= {here for here, _ in pairs}
        for column in relation.columns:
            if column.name not in fixed and not column.generated and not column.identity:
                yield from (_Change(relation, column.name, value) for value in self._values(relation, column))

    def _documents(self, relation: Relation, column: Column) -> Iterator[str]:
        """A document with what the policies hold against constants in it."""
        found: dict[str, str | None] = {}
        for policy in self._catalog.policies_of(relation.oid):
            predicate = policy_predicate(self._catalog, policy, "using")
            for part in walk(predicate) if predicate is not None else ():
                for side, other in (
                    ((part.left, part.right), (part.right, part.left)) if isinstance(part, Compare) else ()
                ):
                    match _bare(side), _bare(other):
                        case Json(document=Column_(level=0, name=name), key=Constant(value=str(step))), Constant(
                            value=value
                        ):
                            found |= {step: value} if name == column.name and not step.startswith("{") else {}
        if found:
            yield json.dumps(found)

    def _keys(self, parent: Relation, column: str) -> list[str]:
        query = sql.SQL("SELECT {}::text FROM {} ORDER BY 1 DESC LIMIT {}").format(
            sql.Identifier(column), name(parent), sql.Literal(_VALUES)
        )
        return [str(value) for (value,) in self._connection.execute(query).fetchall()]

    def _values(self, relation: Relation, column: Column) -> Iterator[str | None]:
        if values.usually_empty(column):
            yield None
        if column.base_type in ("json", "jsonb"):
            yield from self._documents(relation, column)
        elif column.category == "B":
            yield from ("true", "false")
        elif column.enum_labels:
            yield from column.enum_labels
        elif column.base_type.startswith(("timestamp", "date")):
            yield from ("2001-01-01", "2091-01-01")
        elif column.category in "SN":
            yield from self._supply.near(relation, column)[:_VALUES]
            yield from ("1000000",) if column.category == "N" else ()


def _bare(side: Expression) -> Expression:
    while isinstance(side, Cast):
        side = side.argument
    return side
