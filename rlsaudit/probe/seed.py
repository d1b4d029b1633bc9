"""Seeding: the server is the solver.  Propose a row, let PostgreSQL judge it, mend what its error names, try again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from rlsaudit.catalog.model import Catalog, Column, Constraint, Policy, Relation
from rlsaudit.probe import plan, values
from rlsaudit.probe.checks_solver import domain_values, satisfying
from rlsaudit.probe.statement_text import acting, insert
from rlsaudit.probe.world import Tenant
from rlsaudit.tenancy.model import Tenancy

ROWS_PER_TENANT = 2
ATTEMPTS = 40

Filled = dict[str, str | None]
Place = tuple[int, str | None]
"""(relation OID, tenant name); None for rows that belong to nobody or to everybody."""


@dataclass
class Seeded:
    rows: dict[Place, list[Filled]] = field(default_factory=lambda: defaultdict(list))
    """Rows as the server returned them."""
    proposed: dict[Place, list[Filled]] = field(default_factory=lambda: defaultdict(list))
    """Valid rows that were rolled back again."""
    failures: dict[int, str] = field(default_factory=dict)


@dataclass
class _Memory:
    """What the server's errors taught about one relation."""

    choices: dict[str, int] = field(default_factory=dict)
    """Column → how far down its candidates we are."""
    failed_checks: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    """Columns left to their defaults."""
    alone: bool = False
    """Insert without a context: with one, a trigger's own rows got in each other's way."""


class Seeder:
    """Fills one scratch database.  The connection is a superuser's, in autocommit mode."""

    def __init__(
        self,
        connection: psycopg.Connection[tuple[object, ...]],
        catalog: Catalog,
        tenancy: Tenancy,
        tenants: tuple[Tenant, ...],
    ) -> None:
        self._connection = connection
        self._catalog = catalog
        self._tenancy = tenancy
        self._tenants = tenants
        self._serial = 0
        self._memory: dict[int, _Memory] = defaultdict(_Memory)
        self._mined: dict[int, tuple[str, ...]] = {}
        self._domains: dict[str, tuple[str, ...]] = {}
        self._found = Seeded()

    def run(self) -> Seeded:
        """Seed every relation for every tenant, then try spare rows.  Never raises for a row that does not fit."""
        order = plan.seedable(self._catalog, self._tenancy)
        for relation in order:
            for tenant in self._owners(relation):
                self._fill(relation, tenant, ROWS_PER_TENANT)
        for relation in order:
            if relation.kind == "partitioned table":
                self._fill_partitions(relation)
        for relation in order:
            for tenant in self._owners(relation):
                if tenant is not None and self._found.rows[relation.oid, tenant.name]:
                    self._spare(relation, tenant)
        return self._found

    def _owners(self, relation: Relation) -> tuple[Tenant | None, ...]:
        classified = self._tenancy.of(relation.oid)
        if not classified.tenant_data:
            return (None,)
        shared = (None,) if classified.shared_rows and not classified.path else ()
        return (*self._tenants, *shared)

    def _fill(self, relation: Relation, tenant: Tenant | None, count: int) -> None:
        if tenant is None and self._existing(relation):
            return
        wanted = 1 if self._tenancy.of(relation.oid).kind == "registry" else count
        place = (relation.oid, tenant.name if tenant else None)
        for _ in range(wanted):
            row, error = self._insert(relation, tenant, keep=True)
            if row is not None:
                self._found.rows[place].append(row)
            elif not self._found.rows[place] and not self._made_by_triggers(relation, tenant):
                self._found.failures[relation.oid] = error

    def _fill_partitions(self, root: Relation) -> None:
        """A partition without rows would prove nothing: give each its own, with key values from its bounds."""
        for leaf, bounds in plan.leaves(self._catalog, root):
            query = sql.SQL("SELECT FROM {}.{} LIMIT 1").format(sql.Identifier(leaf.schema), sql.Identifier(leaf.name))
            if self._connection.execute(query).fetchone() is not None:
                continue
            for tenant in self._tenants:
                key = self._tenancy.of(root.oid).key
                if not bounds or (key in bounds and bounds[key] != tenant.key):
                    continue
                row, _ = self._insert(root, tenant, keep=True, bounds=bounds)
                if row is not None:
                    self._found.rows[root.oid, tenant.name].append(row)

    def _existing(self, relation: Relation) -> bool:
        """Use reference rows that the schema itself brought along."""
        query = sql.SQL("SELECT {} FROM {}.{} LIMIT 5").format(
            _as_text(relation), sql.Identifier(relation.schema), sql.Identifier(relation.name)
        )
        found = [_row(relation, record) for record in self._connection.execute(query).fetchall()]
        if self._tenancy.of(relation.oid).tenant_data:
            return False
        self._found.rows[relation.oid, None].extend(found)
        return bool(found)

    def _made_by_triggers(self, relation: Relation, tenant: Tenant | None) -> bool:
        """Take the tenant's rows that inserts elsewhere have brought about, such as the founder's membership."""
        classified = self._tenancy.of(relation.oid)
        if tenant is None or classified.key is None or classified.path:
            return False
        query = sql.SQL("SELECT {} FROM {}.{} WHERE {}::text = {} LIMIT 5").format(
            _as_text(relation),
            sql.Identifier(relation.schema),
            sql.Identifier(relation.name),
            sql.Identifier(classified.key),
            sql.Literal(tenant.key),
        )
        found = [_row(relation, record) for record in self._connection.execute(query).fetchall()]
        self._found.rows[relation.oid, tenant.name].extend(found)
        return bool(found)

    def _spare(self, relation: Relation, tenant: Tenant) -> None:
        """A row to insert.  Where no second one can be valid (one row per tenant or user), the first one again: it
        meets the unique key only after the policies have passed it."""
        place = (relation.oid, tenant.name)
        if self._tenancy.of(relation.oid).kind != "registry":
            row, _ = self._insert(relation, tenant, keep=False)
            if row is not None:
                self._found.proposed[place].append(row)
                return
        computed = {column.name for column in relation.columns if column.generated}
        again = {name: value for name, value in self._found.rows[place][0].items() if name not in computed}
        self._found.proposed[place].append(again)

    # One row -------------------------------------------------------------------------------------------------------

    def _insert(
        self,
        relation: Relation,
        tenant: Tenant | None,
        *,
        keep: bool,
        bounds: Mapping[str, str] | None = None,
    ) -> tuple[Filled | None, str]:
        """(row, "") or (None, last error).  A kept row is as the server returned it, a spare one as it was proposed.

        ``bounds`` are values that the row must have.
        """
        error = "no attempt was made"
        memory = self._memory[relation.oid]
        for attempt in range(ATTEMPTS):
            proposal = self._propose(relation, tenant, attempt)
            if isinstance(proposal, str):
                return None, proposal
            proposal.update(bounds or {})
            try:
                with self._connection.transaction(force_rollback=not keep):
                    if not memory.alone:
                        self._act(tenant)
                    returning = sql.SQL("{} RETURNING {}").format(insert(relation, proposal), _as_text(relation))
                    record = self._connection.execute(returning).fetchone()
            except psycopg.Error as problem:
                error = _one_line(problem)
                self._learn(relation, problem, attempt)
                continue
            if record is None:
                return None, "a trigger discarded the row (it returned NULL)"
            return (_row(relation, record) if keep else proposal), ""
        return None, error

    def _act(self, tenant: Tenant | None) -> None:
        """Set the tenant's context: triggers and defaults read it.  A context that cannot be set yet is no obstacle."""
        acting_for = tenant or self._tenants[0]
        persona = self._tenancy.context.seeding
        for statement in acting(persona, acting_for.key, acting_for.user) if persona else ():
            try:
                with self._connection.transaction():
                    self._connection.execute(statement)
            except psycopg.Error:
                return

    def _propose(self, relation: Relation, tenant: Tenant | None, attempt: int) -> Filled | str:
        """A row to try, or the reason why none can be made."""
        self._serial += 1
        memory = self._memory[relation.oid]
        dictated = self._dictated(relation, tenant)
        if isinstance(dictated, str):
            return dictated
        row: Filled = {}
        solved = self._solve(relation, dictated, tenant, attempt) if memory.failed_checks else {}
        for column in relation.columns:
            if column.generated or (column.name in memory.skipped and column.name not in dictated):
                continue
            if column.name in dictated:
                row[column.name] = dictated[column.name]
            elif column.name in solved:
                row[column.name] = solved[column.name]
            else:
                row[column.name] = self._value(relation, column, tenant, attempt)
        return row

    def _value(self, relation: Relation, column: Column, tenant: Tenant | None, attempt: int) -> str | None:
        if values.usually_empty(column) and attempt < ATTEMPTS // 2:
            return None
        pool = self._pool(relation, column, tenant)
        if not pool:
            return None
        step = self._memory[relation.oid].choices.get(column.name, 0)
        # Late attempts shuffle, because an error need not name the column that caused it.
        shift = (attempt * 7 + column.number * attempt) if attempt > ATTEMPTS // 2 else 0
        return pool[(step + shift) % len(pool)]

    def _pool(self, relation: Relation, column: Column, tenant: Tenant | None) -> tuple[str, ...]:
        band = self._tenants.index(tenant) if tenant else len(self._tenants)
        mined = self._constants(relation) if column.category in "SNE" else ()
        # What policies and constraints compare with first, every second row, and always where policies look users up.
        first = self._serial % 2 == 1 or self._tenancy.of(relation.oid).kind in ("membership", "principal")
        pool = values.candidates(column, band, self._serial, mined, mined_first=first)
        if column.base_type.split("(")[0] == column.type.split("(")[0]:
            return pool
        if column.type not in self._domains:
            self._domains[column.type] = domain_values(self._connection, column, band, self._serial)
        accepted = self._domains[column.type]
        shift = self._serial % len(accepted) if accepted else 0
        return tuple(dict.fromkeys((*accepted[shift:], *accepted[:shift], *pool)))

    def _constants(self, relation: Relation) -> tuple[str, ...]:
        if relation.oid not in self._mined:
            texts = [
                c.expression or c.definition for c in self._catalog.constraints_of(relation.oid) if c.kind == "check"
            ]
            texts += [t for p in self._policies_about(relation) for t in (p.using, p.check) if t]
            triggers = (self._catalog.function(t.function) for t in self._catalog.triggers_of(relation.oid))
            texts += [function.source for function in triggers if function is not None]
            self._mined[relation.oid] = tuple(dict.fromkeys(v for text in texts for v in values.mine(text)))[:60]
        return self._mined[relation.oid]

    def _policies_about(self, relation: Relation) -> list[Policy]:
        """Its own policies and those of other relations that read it."""
        mentions = self._catalog.mentions
        return [
            p
            for p in self._catalog.policies
            if p.relation == relation.oid or relation.oid in mentions("policy", p.oid, "relation")
        ]

    # What foreign keys, the tenant key and the principal dictate ----------------------------------------------------

    def _dictated(self, relation: Relation, tenant: Tenant | None) -> Filled | str:
        classified = self._tenancy.of(relation.oid)
        fixed: Filled = {}
        if classified.tenant_data and not classified.path and classified.key:
            fixed[classified.key] = tenant.key if tenant else None
        if tenant is not None:
            fixed.update(self._tenancy.attributes.get(relation.oid, {}))
            fixed.update(self._principal(relation, tenant))
        for position, constraint in enumerate(plan.foreign_keys(self._catalog, relation)):
            problem = self._reference(relation, constraint, tenant, fixed, position)
            if problem:
                return problem
        return fixed

    def _principal(self, relation: Relation, tenant: Tenant) -> Iterator[tuple[str, str]]:
        first = not self._found.rows[relation.oid, tenant.name]
        named = self._tenancy.principal_columns.get(relation.oid, ())
        classified = self._tenancy.of(relation.oid)
        key = relation.column(classified.key) if classified.key and not classified.path else None
        for column in relation.columns:
            # One row per user and tenant: the second row is another user's.
            alone = any(
                set(constraint.columns) - {key.number if key else 0} == {column.number}
                for constraint in self._catalog.constraints_of(relation.oid)
                if constraint.kind in ("primary key", "unique")
            )
            if column.name in named and (first or not alone):
                yield column.name, tenant.user

    def _reference(
        self, relation: Relation, constraint: Constraint, tenant: Tenant | None, fixed: Filled, position: int
    ) -> str | None:
        pairs = plan.column_pairs(self._catalog, constraint)
        parents = self._parents(constraint.referenced, tenant)
        known = {here: fixed[here] for here, _ in pairs if here in fixed and fixed[here] is not None}
        fitting = [p for p in parents if all(p.get(there) == known[here] for here, there in pairs if here in known)]
        if fitting:
            # Two foreign keys of one row walk their parents at different speeds, so that all pairs come up.
            chosen = fitting[(self._serial >> position) % len(fitting)]
            fixed.update({here: chosen.get(there) for here, there in pairs if here not in fixed})
            return None
        if len(known) == len(pairs) and constraint.referenced == relation.oid:
            return None
        free = [here for here, _ in pairs if here not in fixed and _optional(relation, here)]
        if free or any(fixed.get(here, "") is None for here, _ in pairs):
            fixed.update(dict.fromkeys(free))
            return None
        if constraint.referenced == relation.oid:
            return None  # a row that refers to itself: the value candidates decide
        parent = self._catalog.find_relation(constraint.referenced)
        name = parent.qualified if parent else f"relation {constraint.referenced}"
        cause = self._found.failures.get(constraint.referenced, "it has no rows for this tenant")
        return f"{constraint.name} needs a row of {name}, which could not be seeded: {cause}"

    def _parents(self, parent: int, tenant: Tenant | None) -> list[Filled]:
        own = self._found.rows[parent, tenant.name] if tenant else []
        return own or self._found.rows[parent, None]

    # Learning from errors -------------------------------------------------------------------------------------------

    def _learn(self, relation: Relation, problem: psycopg.Error, attempt: int) -> None:
        memory = self._memory[relation.oid]
        code, named = problem.sqlstate or "", problem.diag.constraint_name
        if code == "23505" and problem.diag.table_name != relation.name:
            memory.alone = not memory.alone
        if code == "23514" and named and named not in memory.failed_checks:
            memory.failed_checks.add(named)
        elif code == "23514" and problem.diag.datatype_name:
            self._advance(memory, [c for c in relation.columns if problem.diag.datatype_name in c.type])
        elif code == "23502" and problem.diag.column_name:
            memory.skipped.discard(problem.diag.column_name)
            self._advance(memory, [c for c in relation.columns if c.name == problem.diag.column_name])
        elif code in ("P0001", "42501") or code.startswith("22") or attempt % 5 == 4:
            self._advance(memory, list(relation.columns))
            if attempt % 2:
                memory.skipped.update(c.name for c in relation.columns if c.default is not None or not c.not_null)
            else:
                memory.skipped.clear()

    @staticmethod
    def _advance(memory: _Memory, affected: list[Column]) -> None:
        for column in affected:
            memory.choices[column.name] = memory.choices.get(column.name, 0) + 1

    def _solve(self, relation: Relation, dictated: Filled, tenant: Tenant | None, attempt: int) -> Filled:
        """Ask the server which combinations of candidates pass every CHECK that has failed so far, and take one."""
        failed = self._memory[relation.oid].failed_checks
        checks = [c for c in self._catalog.constraints_of(relation.oid) if c.name in failed and c.expression]
        numbers = {number for c in checks for number in c.columns}
        linked = [column for column in relation.columns if column.number in numbers and not column.generated]
        pools: Mapping[str, tuple[str | None, ...]] = {
            column.name: (dictated[column.name],)
            if column.name in dictated
            else (*self._pool(relation, column, tenant), *(() if column.not_null else (None,)))
            for column in linked
        }
        found = satisfying(self._connection, linked, pools, [c.expression or "true" for c in checks])
        return found[attempt % len(found)] if found else {}


def _optional(relation: Relation, name: str) -> bool:
    column = relation.column(name)
    return column is not None and not column.not_null


def _as_text(relation: Relation) -> sql.Composable:
    parts = [sql.SQL("{}::text").format(sql.Identifier(column.name)) for column in relation.columns]
    return sql.SQL(", ").join(parts) if parts else sql.SQL("NULL")


def _row(relation: Relation, record: tuple[object, ...]) -> Filled:
    cells = (None if cell is None else str(cell) for cell in record)
    return dict(zip((column.name for column in relation.columns), cells, strict=False))


def _one_line(problem: psycopg.Error) -> str:
    return " ".join(str(problem.diag.message_primary or problem).split())
