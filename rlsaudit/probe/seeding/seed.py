"""Seeding: the server is the solver.  Propose a row, let PostgreSQL judge it, mend what its error names, try again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.probe.seeding import plan
from rlsaudit.probe.seeding.advice import advised
from rlsaudit.probe.seeding.cycles import insert_cycle
from rlsaudit.probe.seeding.dictate import Dictator, Filled, Place
from rlsaudit.probe.seeding.fallbacks import by_functions, late_references, standing
from rlsaudit.probe.seeding.lessons import FIRST, Lessons, learn
from rlsaudit.probe.seeding.partitions import bounds_of, empty_leaves
from rlsaudit.probe.seeding.propose import Proposer
from rlsaudit.probe.seeding.sight import Sight
from rlsaudit.probe.seeding.supply import Supply
from rlsaudit.probe.seeding.writer import Connection, Refusal, Way, Writer
from rlsaudit.tenancy.model import Tenancy

ROWS_PER_TENANT = 2
_FLAG = "its rows were made"
"""So begins what is said of rows that no INSERT of ours has made."""
_DISCARDED = "a trigger or rule made nothing of the row"


@dataclass
class Seeded:
    rows: dict[Place, list[Filled]] = field(default_factory=lambda: defaultdict(list))
    """Rows as the server returned them."""
    proposed: dict[Place, list[Filled]] = field(default_factory=lambda: defaultdict(list))
    """Valid rows that were rolled back again."""
    brought: set[int] = field(default_factory=set)
    """Relations without tenant data whose rows came with the schema."""
    strays: dict[int, list[Filled]] = field(default_factory=lambda: defaultdict(list))
    """Rows of no tenant where every row should have one: the key is NULL or empty."""
    failures: dict[int, str] = field(default_factory=dict)
    """Relations without rows, or with rows that no INSERT made, and the server's last word."""


class Rejected(Exception):
    """A relation took one tenant's rows and refused another's."""


class Seeder:
    """Fills one scratch database.  The connection is a superuser's, inside a transaction."""

    def __init__(
        self,
        connection: Connection,
        catalog: Catalog,
        tenancy: Tenancy,
        tenants: tuple[Tenant, ...],
        *,
        strict: bool = False,
    ) -> None:
        self._connection = connection
        self._catalog = catalog
        self._tenancy = tenancy
        self._tenants = tenants
        self._strict = strict
        self._serial = 0
        self._lessons: dict[int, Lessons] = defaultdict(Lessons)
        self._found = Seeded()
        more = plan.readable(catalog, tenancy, visibility_of(catalog))
        self._order = plan.seedable(catalog, tenancy, more)
        self._writer = Writer(connection, tenancy, tenants)
        supply = Supply(connection, catalog, tenancy, self._order)
        dictator = Dictator(catalog, tenancy, self._found.rows, self._found.failures)
        self._propose = Proposer(connection, catalog, tenancy, tenants, supply, dictator)
        self._sight = Sight(connection, self._writer, catalog, tenancy, tenants, supply)
        self._triggered = any("INSERT" in trigger.events for trigger in catalog.triggers)

    def run(self) -> Seeded:
        """Seed every relation for every tenant, then try spare rows.  Never raises for a row that does not fit.

        Raises Rejected when ``strict`` and a relation took one tenant's rows only.
        """
        for group in plan.groups(self._catalog, self._order):
            self._fill_group(group)
        self._again()
        late_references(self._writer, self._catalog, self._tenancy, self._tenants, self._found.rows, self._order)
        for relation in self._order:
            if relation.kind == "partitioned table":
                self._fill_partitions(relation)
        self._look()
        for relation in self._order:
            self._stray(relation)
            for tenant in self._owners(relation):
                if self._found.rows[relation.oid, tenant.name if tenant else None]:
                    self._spare(relation, tenant)
        return self._found

    def _stray(self, relation: Relation) -> None:
        """Rows as an import leaves them, with no tenant in the key, where the schema lets them in."""
        classified, made = self._tenancy.of(relation.oid), self._found
        key = relation.column(classified.key) if classified.key and not classified.path else None
        if key is None or classified.kind != "tenant" or classified.shared_rows or relation.oid in made.failures:
            return
        references = (plan.column_pairs(self._catalog, c) for c in plan.foreign_keys(self._catalog, relation))
        elsewhere = {here for pairs in references if key.name not in dict(pairs) for here, _ in pairs}
        for nobody in (None, "") if key.category == "S" else (None,):
            row = self._propose.row(relation, self._tenants[0], self._next(), self._lessons[relation.oid], 0).row
            # What refers to a tenant's row would go when that tenant deletes it.
            given = {**row, **dict.fromkeys(elsewhere), key.name: nobody}
            outcome = self._writer.insert(relation, given, self._tenants[0], keep=True)
            if isinstance(outcome, dict) and not outcome.get(key.name):
                made.strays[relation.oid].append(outcome)

    def _look(self) -> None:
        """Let each tenant see its own rows; what was changed for that is read anew."""
        changed = self._sight.clear(
            self._order, lambda relation, tenant: bool(self._found.rows[relation.oid, tenant.name])
        )
        for relation in (self._catalog.relation(oid) for oid in changed):
            for tenant in self._tenants:
                if rows := self._standing(relation, tenant):
                    self._found.rows[relation.oid, tenant.name] = rows

    def again(self) -> Seeded:
        """Another try at what has no rows, after statements of the user's own."""
        self._again()
        return self._found

    def _fill_group(self, group: tuple[Relation, ...]) -> None:
        for tenant in self._owners(group[0]):
            if len(group) > 1 and tenant is not None:
                self._cycle(group, tenant)
            for relation in group:
                self._fill(relation, tenant)
        for relation in group:
            self._reject(relation)

    def _reject(self, relation: Relation) -> None:
        if self._strict and self._tenancy.of(relation.oid).tenant_data:
            filled = [bool(self._found.rows[relation.oid, tenant.name]) for tenant in self._tenants]
            if any(filled) != all(filled) or (relation.oid == self._tenancy.registry and not any(filled)):
                raise Rejected

    def _again(self) -> None:
        """What failed for want of rows that other relations' triggers or functions have made since."""
        for relation in self._order:
            if relation.oid not in self._found.failures:
                continue
            for tenant in self._owners(relation):
                if not self._found.rows[relation.oid, tenant.name if tenant else None]:
                    self._fill(relation, tenant, last=True)
            if all(self._found.rows[relation.oid, tenant.name] for tenant in self._tenants):
                error = self._found.failures[relation.oid]
                if self._lessons[relation.oid].made:
                    del self._found.failures[relation.oid]
                elif not error.startswith(_FLAG):
                    self._found.failures[relation.oid] = (
                        f"{_FLAG} by triggers or functions; an INSERT is refused: {error}"
                    )

    def _owners(self, relation: Relation) -> tuple[Tenant | None, ...]:
        classified = self._tenancy.of(relation.oid)
        if not classified.tenant_data:
            return (None,)
        shared = (None,) if classified.shared_rows and not classified.path else ()
        return (*self._tenants, *shared)

    def _wanted(self, relation: Relation) -> int:
        return 1 if self._tenancy.of(relation.oid).kind == "registry" else ROWS_PER_TENANT

    def _fill(self, relation: Relation, tenant: Tenant | None, *, last: bool = False) -> None:
        place = (relation.oid, tenant.name if tenant else None)
        rows = self._found.rows[place]
        if not rows and (tenant is None or self._triggered or last):
            rows += self._standing(relation, tenant)
            self._found.brought |= {relation.oid} if rows and tenant is None else set()
        while len(rows) < self._wanted(relation):
            row, error = self._insert(relation, tenant, keep=True)
            if row is None:
                break
            rows.append(row)
        if rows or tenant is None:
            if not rows:
                self._found.failures.setdefault(relation.oid, error)
            return
        rows += self._standing(relation, tenant)
        if not rows:
            self._found.failures[relation.oid] = error
            if last and not self._lessons[relation.oid].impossible():
                self._otherwise(relation, tenant, error)

    def _otherwise(self, relation: Relation, tenant: Tenant, error: str) -> None:
        """No INSERT makes a row: call what might make one, or as the last resort go past the triggers."""
        rows = self._found.rows[relation.oid, tenant.name]
        if by_functions(self._writer, self._catalog, self._propose, relation, tenant, self._next()):
            rows += self._standing(relation, tenant)
        if rows:
            self._found.failures[relation.oid] = f"{_FLAG} by a function; an INSERT is refused: {error}"
            return
        self._lessons[relation.oid].hopeless = False
        for _ in range(self._wanted(relation)):
            row, _ = self._insert(relation, tenant, keep=True, way="replica", attempts=FIRST // 2)
            if row is None:
                return
            rows.append(row)
            self._found.failures[relation.oid] = f"{_FLAG} with triggers and rules off, because: {error}"

    def _cycle(self, group: tuple[Relation, ...], tenant: Tenant) -> None:
        for _ in range(min(self._wanted(relation) for relation in group)):
            made = insert_cycle(self._writer, self._propose, self._lessons, self._catalog, group, tenant, self._next)
            if isinstance(made, str):
                for relation in group:
                    self._found.failures.setdefault(relation.oid, made)
                return
            for oid, row in made.items():
                self._found.rows[oid, tenant.name].append(row)
                self._found.failures.pop(oid, None)

    def _fill_partitions(self, root: Relation) -> None:
        """A partition without rows would prove nothing: give each its own, with key values from its bounds."""
        for bounds in empty_leaves(self._connection, self._catalog, root):
            for tenant in self._owners(root):
                if tenant is None and not bounds:
                    continue
                row, _ = self._insert(root, tenant, keep=True, bounds=bounds, attempts=4)
                if row is not None:
                    self._found.rows[root.oid, tenant.name if tenant else None].append(row)

    def _standing(self, relation: Relation, tenant: Tenant | None) -> list[Filled]:
        return standing(self._connection, self._catalog, self._tenancy, self._tenants, relation, tenant)

    def remedies(self) -> dict[int, str]:
        """Why relations have no rows, each with what to write in the configuration."""
        empty = {
            oid: said
            for oid, said in self._found.failures.items()
            if not any(self._found.rows[oid, tenant.name] for tenant in self._tenants)
            and " could not be seeded: " not in said
        }
        checks = {oid: lessons.checks for oid, lessons in self._lessons.items()}
        return {**self._found.failures, **advised(self._catalog, empty, checks)}

    def _spare(self, relation: Relation, tenant: Tenant | None) -> None:
        """A row to insert.  Where no second one can be valid (one row per tenant or user), and beside a new user's, the
        first one again: it meets the unique key only after the policies have passed it."""
        place = (relation.oid, tenant.name if tenant else None)
        single = self._tenancy.of(relation.oid).kind == "registry" or self._lessons[relation.oid].full()
        if not single and relation.oid not in self._found.failures:
            row, _ = self._insert(relation, tenant, keep=False)
            if row is not None:
                self._found.proposed[place].append(row)
                users = (tenant.user, *tenant.fellows) if tenant else ()
                named = self._tenancy.principal_columns.get(relation.oid, ())
                if not users or all(row.get(column) in users for column in named if column in row):
                    return
        computed = {column.name for column in relation.columns if column.generated}
        again = {column: value for column, value in self._found.rows[place][0].items() if column not in computed}
        self._found.proposed[place].append(again)

    # One row -------------------------------------------------------------------------------------------------------

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def _insert(
        self,
        relation: Relation,
        tenant: Tenant | None,
        *,
        keep: bool,
        bounds: Sequence[str] = (),
        attempts: int = 0,
        way: Way | None = None,
    ) -> tuple[Filled | None, str]:
        """(row, "") or (None, last error).  A kept row is as the server returned it, a spare one as it was proposed.

        ``bounds`` are expressions that the row must fulfil.
        """
        lessons, error = self._lessons[relation.oid], "no attempt was made"
        lessons.taken.clear()
        for attempt in range(attempts or (8 if tenant is None else lessons.attempts())):
            if lessons.bounded and not bounds:
                bounds_now = bounds_of(self._connection, self._catalog, relation, lessons.leaf + self._serial)
            else:
                bounds_now = tuple(bounds)
            proposal = self._propose.row(relation, tenant, self._next(), lessons, attempt, bounds_now)
            if proposal.missing:
                return None, proposal.missing
            outcome = self._writer.insert(relation, proposal.row, tenant, keep=keep, way=way or lessons.way)
            if isinstance(outcome, dict):
                lessons.made += way is None
                self._propose.remember(relation, proposal.row, lessons)
                return (outcome if keep else proposal.row), ""
            refusal = outcome or Refusal("", _DISCARDED)
            error = refusal.message
            learn(lessons, self._catalog, relation, set(proposal.dictated), refusal, attempt)
            if lessons.full():
                return None, error
            if lessons.hopeless or lessons.impossible():
                break
        lessons.failed += not attempts
        return None, error
