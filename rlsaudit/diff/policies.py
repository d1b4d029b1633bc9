"""Relation × role × command: what HEAD's policies admit against what BASE's did.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from rlsaudit.catalog.expression import subquery_relations
from rlsaudit.catalog.relations import COMMANDS, Command, Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.diff.objects import Changes, Object, Side, bare, dependents
from rlsaudit.prove.goals import Answer
from rlsaudit.prove.prove import SIDES
from rlsaudit.prove.tables import NOTHING, Reader
from rlsaudit.prove.wider import EVERYTHING, Terms, Untranslatable, admitted, translated, wider
from rlsaudit.tenancy.model import ApplicationRole

Way = Literal["same", "wider", "narrower", "unknown", "unbound", "granted", "revoked"]
"""``unbound``: row security no longer binds the role; ``granted``: the role had no such privilege."""


@dataclass(frozen=True, slots=True)
class Compared:
    """How one cell's rows differ."""

    relation: str
    role: str
    command: Command
    way: Way
    why: str = ""
    """The reason for ``unknown`` and ``unbound``, the new row for ``wider``."""


@dataclass(frozen=True)
class Comparison:
    """Both sides, and how BASE's terms read in HEAD."""

    base: Side
    head: Side
    changes: Changes

    @cached_property
    def terms(self) -> Terms:
        """Relations by name; functions by signature, those that do the same and call nothing that changed."""
        named = (
            (one.oid, self.head.relations.get(self.changes.named(name))) for name, one in self.base.relations.items()
        )
        relations = {oid: there.oid for oid, there in named if there is not None}
        functions = {
            one.oid: there.oid
            for name, one in self.base.functions.items()
            if ("function", name) not in self.altered and (there := self.head.functions.get(name)) is not None
        }
        return Terms(self.head.catalog, relations, functions)

    def cells(self) -> Iterator[Compared]:
        """Of every relation that both sides have, where a policy, a privilege or what they rest on is not the same."""
        before = {self.changes.named(name): one for name, one in self.base.relations.items()}
        roles = {role.name: role for role in self.base.tenancy.roles}
        for kind, name in sorted(self.changes.affected):
            old, new = before.get(name), self.head.relations.get(name)
            if kind != "relation" or old is None or new is None or not new.holds_rows:
                continue
            for role in (*self.head.tenancy.roles, *self.head.tenancy.unmet):
                known = self.base.catalog.role_named(role.name)
                was = roles.get(role.name) or (ApplicationRole(known.oid, known.name, "") if known else None)
                for command in COMMANDS:
                    yield self._cell(old, was, new, role, command)

    def _cell(
        self, old: Relation, was: ApplicationRole | None, new: Relation, role: ApplicationRole, command: Command
    ) -> Compared:
        base, head = self.base.visibility, self.head.visibility
        could = was is not None and base.may(was.oid, old, command)
        can = head.may(role.oid, new, command)
        found = (new.qualified, role.name, command)
        if not could or not can or was is None:
            return Compared(*found, "granted" if can else "revoked" if could else "same")
        unbound = head.exempt(role.oid, new)
        if unbound is not None:
            return Compared(*found, "unbound" if base.exempt(was.oid, old) is None else "same", unbound)
        answers = [self._side(old, was, new, role, command, side) for side in SIDES[command]]
        for way in ("wider", "unknown", "narrower"):
            for one in answers:
                if one[0] == way:
                    return Compared(*found, one[0], one[1])
        return Compared(*found, "same")

    def _side(
        self, old: Relation, was: ApplicationRole, new: Relation, role: ApplicationRole, command: Command,
        side: Literal["old", "new"],
    ) -> tuple[Way, str]:  # fmt: skip
        ours = admitted(self.base.catalog, self.base.visibility, was.oid, old, command, side)
        theirs = admitted(self.head.catalog, self.head.visibility, role.oid, new, command, side)
        if theirs is NOTHING or theirs == NOTHING or ours is EVERYTHING:
            return ("same", "") if theirs == ours else ("narrower", "")
        policies = (
            self.base.visibility.policies(was.oid, old, command), self.head.visibility.policies(role.oid, new, command)
        )  # fmt: skip
        written, now = ({(p.permissive, p.using, p.check) for p in applied} for applied in policies)
        if written == now and not self._calls_altered(new) and not self._moved(subquery_relations(theirs)):
            return "same", ""
        reader = Reader(self.head.catalog, self.head.tenancy, self.head.visibility, role)
        itself = Terms(self.head.catalog, _same(self.head.catalog.relations), _same(self.head.catalog.functions))
        try:
            before = translated(ours, new, self.terms)
            after = translated(theirs, new, itself)
        except Untranslatable as reason:
            return "unknown", str(reason)
        if moved := self._moved(subquery_relations(before)):
            return "unknown", f"rows are bounded through {', '.join(moved)}, whose own policies changed"
        answer = wider(before, after, side, new, role, reader)
        if answer.verdict == "violated":
            return "wider", str(answer.witness)
        if answer.verdict == "unknown":
            return "unknown", f"depends on {_left_open(answer)}"
        back = wider(after, before, side, new, role, reader)
        return ("same", "") if back.verdict == "holds" else ("narrower", "")

    def _calls_altered(self, relation: Relation) -> bool:
        read = self.head.reads(("relation", relation.qualified))
        return any(kind == "function" and bare(name) in read for kind, name in self.altered)

    def _moved(self, relations: frozenset[int]) -> tuple[str, ...]:
        """Relations that policies look up and of which the role may see other rows than it did."""
        names = (self.head.catalog.find_relation(oid) for oid in sorted(relations))
        return tuple(one.qualified for one in names if one is not None and ("relation", one.qualified) in self.altered)

    @cached_property
    def altered(self) -> frozenset[Object]:
        """Functions that may give something else for the same rows, and relations whose policies may."""
        start = {one for one in self.changes.changed | self.changes.new if one[0] == "function"}
        start |= {one for one in self.changes.changed if one[0] == "relation" and self._policies_differ(one[1])}
        return frozenset(dependents(self.head, start, dynamic=False))

    def _policies_differ(self, name: str) -> bool:
        old = next((one for known, one in self.base.relations.items() if self.changes.named(known) == name), None)
        new = self.head.relations[name]
        if old is None:
            return True
        sides: tuple[tuple[Side, Relation], ...] = ((self.base, old), (self.head, new))
        texts = [
            {(p.command, p.permissive, p.using, p.check) for p in side.catalog.policies_of(one.oid)}
            for side, one in sides
        ]
        return texts[0] != texts[1] or (old.rls_enabled, old.rls_forced) != (new.rls_enabled, new.rls_forced)


def _same(items: Iterable[Relation] | Iterable[Function]) -> Mapping[int, int]:
    return {one.oid: one.oid for one in items}


def _left_open(answer: Answer) -> str:
    return ", ".join(answer.unknowns[:3]) or "something the solver could not settle"
