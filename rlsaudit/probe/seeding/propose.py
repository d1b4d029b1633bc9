"""One row to try: what is dictated, what CHECKs allow, and a candidate for every other column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Column, Relation
from rlsaudit.probe.ground.world import Tenant, tokens
from rlsaudit.probe.seeding import checks_solver, values
from rlsaudit.probe.seeding.checks_solver import demand, demand_of_text
from rlsaudit.probe.seeding.dictate import Dictated, Dictator, Filled
from rlsaudit.probe.seeding.lessons import FIRST, Lessons
from rlsaudit.probe.seeding.server_side import Connection
from rlsaudit.probe.seeding.supply import Supply
from rlsaudit.tenancy.model import Tenancy

_CONSTANTS = 5
_ANYBODY = "*"


@dataclass(frozen=True)
class Proposal:
    row: Filled = field(default_factory=dict)
    dictated: frozenset[str] = frozenset()
    missing: str = ""
    """Why there can be no row."""


class Proposer:
    """Makes rows for any relation of one schema."""

    def __init__(
        self,
        connection: Connection,
        catalog: Catalog,
        tenancy: Tenancy,
        tenants: tuple[Tenant, ...],
        supply: Supply,
        dictator: Dictator,
    ) -> None:
        self._connection = connection
        self._catalog = catalog
        self._tenancy = tenancy
        self._tenants = tenants
        self.supply = supply
        self._dictator = dictator
        self._near: dict[int, Mapping[str, tuple[tuple[str, ...], int]]] = {}

    def row(
        self,
        relation: Relation,
        tenant: Tenant | None,
        serial: int,
        lessons: Lessons,
        attempt: int,
        bounds: Sequence[str] = (),
        promised: Mapping[int, Filled] | None = None,
    ) -> Proposal:
        """``bounds``: more expressions to fulfil.  ``promised``: rows of a cycle, by relation."""
        dictated = self._dictator.dictated(relation, tenant, serial, promised)
        if dictated.missing:
            return Proposal(missing=dictated.missing)
        solved = self._solved(relation, dictated, tenant, serial, lessons, attempt, bounds)
        row: Filled = {}
        for column in relation.columns:
            if column.generated or column.name in lessons.banned:
                continue
            if column.name in solved:
                row[column.name] = solved[column.name]
            elif column.name in dictated.values:
                row[column.name] = dictated.values[column.name]
            elif column.name not in lessons.skipped:
                row[column.name] = self._value(relation, column, tenant, serial, lessons, attempt)
        for pairs in dictated.itself:
            row.update({here: row.get(there) for here, there in pairs if here in row})
        return Proposal(row, frozenset(dictated.values))

    def band(self, tenant: Tenant | None) -> int:
        """The place of the tenant's own values."""
        return self._tenants.index(tenant) if tenant else len(self._tenants)

    def _value(
        self, relation: Relation, column: Column, tenant: Tenant | None, serial: int, lessons: Lessons, attempt: int
    ) -> str | None:
        if values.usually_empty(column) and attempt < FIRST // 2 and not lessons.choices[column.name]:
            return None
        if lessons.raised and (constant := self._combined(relation, column, lessons)) is not None:
            return constant
        pool = self.pool(relation, column, tenant, serial)
        if not pool:
            return None
        # Late attempts shuffle, because an error need not name the column that caused it.
        shift = attempt * 7 + column.number * attempt if attempt > FIRST // 2 else 0
        return pool[(lessons.choices[column.name] + shift) % len(pool)]

    def _combined(self, relation: Relation, column: Column, lessons: Lessons) -> str | None:
        """Where a trigger refuses without naming a column: all combinations of the constants that it compares with."""
        if column.name in lessons.good:
            return lessons.good[column.name]
        near, stride = self._compared(relation).get(column.name, ((), 1))
        place = lessons.raised // stride % (len(near) + 1)
        return near[place] if place < len(near) else None

    def _compared(self, relation: Relation) -> Mapping[str, tuple[tuple[str, ...], int]]:
        """The columns that anything is compared with, in their order, and the constants; how many refusals each is kept
        for, so that all combinations come up."""
        if relation.oid not in self._near:
            found: dict[str, tuple[tuple[str, ...], int]] = {}
            stride = 1
            for column in relation.columns:
                near = () if column.generated else self.supply.near(relation, column)[:_CONSTANTS]
                if near:
                    found[column.name] = near, stride
                    stride *= len(near) + 1  # one place more, for a value of its own
            self._near[relation.oid] = found
        return self._near[relation.oid]

    def remember(self, relation: Relation, row: Filled, lessons: Lessons) -> None:
        """Keep the constants with which a row went through at last."""
        if lessons.raised and not lessons.good:
            for name, (near, _) in self._compared(relation).items():
                value = row.get(name)
                if value is not None and value in near:
                    lessons.good[name] = value

    def pool(self, relation: Relation, column: Column, tenant: Tenant | None, serial: int) -> tuple[str, ...]:
        """Candidates of one column for one tenant."""
        # What policies and constraints compare with first, every second row, and always where policies look users up.
        first = serial % 2 == 1 or self._tenancy.of(relation.oid).kind in ("membership", "principal")
        return self.supply.pool(relation, column, self.band(tenant), serial, mined_first=first)

    def _solved(
        self,
        relation: Relation,
        dictated: Dictated,
        tenant: Tenant | None,
        serial: int,
        lessons: Lessons,
        attempt: int,
        bounds: Sequence[str],
    ) -> Filled:
        """A combination that the server finds to pass every CHECK that has failed so far, and those linked with them."""
        checks = [c for c in self._catalog.constraints_of(relation.oid) if c.kind == "check" and c.expression]
        failed = [demand(c) for c in checks if c.name in lessons.checks]
        failed += [demand_of_text(relation, bound) for bound in bounds]
        if not failed:
            return {}
        fixed = frozenset(dictated.values) - dictated.alternatives.keys()
        demands = checks_solver.connected(relation, failed, [demand(c) for c in checks], fixed)
        numbers = {number for one in demands for number in one.columns}
        named = {column.name for column in relation.columns if column.number in numbers}
        lasting = not (bounds or self._unique(relation, numbers) or dictated.alternatives.keys() & named)
        if lessons.checked != lessons.checks:
            lessons.solved.clear()
        own = tenant.name if tenant else ""
        if lasting and (known := lessons.solved.get(own) or lessons.solved.get(_ANYBODY)):
            return known[attempt % len(known)]
        computed = any(column.generated for column in relation.columns if column.number in numbers)
        pools = {
            column.name: self._candidates(relation, column, dictated, tenant, serial, lessons)
            for column in relation.columns
            if computed or column.number in numbers
        }
        word = values.token(self.band(tenant), serial)
        found = checks_solver.satisfying(self._connection, relation, demands, pools, word, serial)
        lessons.unsolved = 0 if found else lessons.unsolved + (not bounds)
        if not found:
            return {}
        if lasting:
            free = [{name: value for name, value in one.items() if name not in dictated.values} for one in found]
            # What tells nobody apart serves every tenant, unless it depends on values that are the tenant's own.
            marked = bool(named & dictated.values.keys()) or any(list(tokens(v or "")) for v in free[0].values())
            lessons.solved[own if marked else _ANYBODY], lessons.checked = free, frozenset(lessons.checks)
        return found[_step(lessons, attempt) % len(found)]

    def _unique(self, relation: Relation, numbers: set[int]) -> bool:
        """Whether one of the columns takes part in a unique or an exclusion key, so that each row needs its own values."""
        keys = (i.columns for i in self._catalog.indexes_of(relation.oid) if i.unique or i.method == "gist")
        return any(0 in columns or numbers & set(columns) for columns in keys)

    def _candidates(
        self,
        relation: Relation,
        column: Column,
        dictated: Dictated,
        tenant: Tenant | None,
        serial: int,
        lessons: Lessons,
    ) -> tuple[str | None, ...]:
        if column.name in dictated.values:
            chosen = dictated.values[column.name]
            return tuple(dict.fromkeys((chosen, *dictated.alternatives.get(column.name, ()))))
        pool = self.pool(relation, column, tenant, serial)
        shift = lessons.choices[column.name] % len(pool) if pool else 0
        empty = () if column.not_null else (None,)
        first = empty if values.usually_empty(column) else ()
        return tuple(dict.fromkeys((*first, *pool[shift:], *pool[:shift], *empty)))


def _step(lessons: Lessons, attempt: int) -> int:
    """How far down the combinations: they are ordered from the best, and every refusal asks for the next."""
    return attempt if lessons.made else max(0, attempt - len(lessons.checks))
