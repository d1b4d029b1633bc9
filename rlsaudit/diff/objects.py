"""Which objects of HEAD are not what they are in BASE, and which depend on them.  Pure.

Objects count by name and by all that bears on isolation: a relation with its columns, constraints, unique indexes,
policies, triggers, rules, its class, and what each application role may do with it.  Dependence is read off the text,
wide rather than narrow: a word that is an object's name counts as that object.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import COMMANDS, Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.catalog.snapshot import Names, named, names_of
from rlsaudit.catalog.visibility import Visibility, visibility_of
from rlsaudit.probe.attacks.reach import runs_text, words_of
from rlsaudit.source.tokens import tokens
from rlsaudit.tenancy.model import Classified, Tenancy

Object = tuple[Literal["relation", "function"], str]
"""Kind, and qualified name or signature."""

_PASSED_ON = frozenset({"CASCADE", "SET NULL", "SET DEFAULT"})


@dataclass(frozen=True)
class Side:
    """One of the two schemas."""

    catalog: Catalog
    tenancy: Tenancy

    @cached_property
    def visibility(self) -> Visibility:
        return visibility_of(self.catalog)

    @cached_property
    def names(self) -> Names:
        return names_of(self.catalog)

    @cached_property
    def relations(self) -> Mapping[str, Relation]:
        kept = (one for one in self.catalog.relations if one.kind != "sequence" and one.extension is None)
        return {relation.qualified: relation for relation in kept}

    @cached_property
    def functions(self) -> Mapping[str, Function]:
        return {one.signature: one for one in self.catalog.functions if one.extension is None}

    @cached_property
    def texts(self) -> Mapping[Object, str]:
        """What each object is, in a text that is the same for equal ones of two catalogs."""
        found: dict[Object, str] = {("relation", name): self._relation(one) for name, one in self.relations.items()}
        return found | {("function", name): self._function(one) for name, one in self.functions.items()}

    def tenant_data(self, name: str) -> bool:
        relation = self.relations.get(name)
        return relation is not None and self.tenancy.of(relation.oid).tenant_data

    def _relation(self, relation: Relation) -> str:
        catalog, oid = self.catalog, relation.oid
        unique = (index for index in catalog.indexes_of(oid) if index.unique)
        attached: list[object] = [*catalog.constraints_of(oid), *unique, *catalog.triggers_of(oid)]
        attached += [*catalog.policies_of(oid), *(rule for rule in catalog.rules if rule.relation == oid)]
        parts = [repr(named(relation, self.names)), *sorted(repr(named(one, self.names)) for one in attached)]
        parts.append(self._class(self.tenancy.of(oid)))
        parts.append(repr(self.tenancy.principal_columns.get(oid, ())))
        for role in sorted(self.tenancy.roles, key=lambda one: one.name):
            held = {c: sorted(self.visibility.columns(role.oid, relation, c)) for c in COMMANDS}
            other = sorted(self.visibility.privileges(role.oid, relation))
            bound = self.visibility.exempt(role.oid, relation)
            schema = self.visibility.may_use_schema(role.oid, relation.schema)
            applied = [sorted(p.name for p in self.visibility.policies(role.oid, relation, c)) for c in COMMANDS]
            parts.append(repr((role.name, held, other, bound, schema, applied)))
        return "\n".join(parts)

    def _class(self, one: Classified) -> str:
        steps = [(self.names["relation"].get(step.relation, ""), step.columns) for step in one.path]
        return repr((one.kind, one.key, steps, one.shared_rows))

    def _function(self, function: Function) -> str:
        may = [role.name for role in self.tenancy.roles if self.visibility.may_execute(role.oid, function)]
        source = function.source
        # Where no quote depends on a setting, layout and comments are nothing.
        if function.language in ("sql", "plpgsql") and "\\" not in source:
            source = " ".join(token.text for token in tokens(source))
        return f"{named(replace(function, source=source), self.names)!r}\n{sorted(may)!r}"

    def common(self, roles: frozenset[str]) -> Mapping[str, str]:
        """What every relation depends on, by what it is called in a sentence; of roles those named."""
        catalog, context = self.catalog, self.tenancy.context
        here = ("", catalog.server.database)
        settings = sorted(
            (catalog.role_name(s.role) if s.role else "", s.name, s.value)
            for s in catalog.settings
            if s.database in here
        )
        personas = [(one.name, one.statements, one.login) for one in (*context.personas, *context.setters)]
        logins = sorted(
            one.name for one in catalog.event_triggers if one.enabled != "disabled" and one.event == "login"
        )
        reached = sorted(
            (role.name, sorted(catalog.role_name(oid) for oid in self.visibility.becomes(role.oid)))
            for role in self.tenancy.roles
            if role.name in roles
        )
        return {
            "what application roles can become": repr(reached),
            "how a session says for whom it acts": repr((personas, sorted(context.settings), self.tenancy.key_type)),
            "settings of roles or of the database": repr((settings, logins)),
        }

    def reads(self, one: Object) -> frozenset[str]:
        """Words of an object's text, among them the names of all it depends on."""
        if one[0] == "function":
            function = self.functions[one[1]]
            return words_of(f"{function.source} {' '.join(function.settings)}")
        relation = self.relations[one[1]]
        oid, catalog = relation.oid, self.catalog
        texts = [relation.definition or "", *(column.default or "" for column in relation.columns)]
        texts += [text for policy in catalog.policies_of(oid) for text in (policy.using, policy.check) if text]
        texts += [
            f"{t.definition} {f.name if (f := catalog.function(t.function)) else ''}" for t in catalog.triggers_of(oid)
        ]
        texts += [rule.definition for rule in catalog.rules if rule.relation == oid]
        texts += [c.definition for c in catalog.constraints_of(oid) if c.kind in ("check", "exclusion")]
        return words_of(" ".join(texts)) - {relation.name.lower()}


@dataclass(frozen=True)
class Changes:
    """What is not the same on both sides; objects of BASE bear the names that they have in HEAD."""

    new: frozenset[Object]
    gone: frozenset[Object]
    changed: frozenset[Object]
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Qualified name in BASE → in HEAD."""
    common: tuple[str, ...] = ()
    """What changed for every relation."""
    reached: frozenset[Object] = frozenset()
    """In HEAD: new, changed, and what depends on those."""
    affected: frozenset[Object] = frozenset()
    """These, and what leads to them."""

    def named(self, relation: str) -> str:
        """The name in HEAD of a relation of BASE."""
        return self.renamed.get(relation, relation)


def changes(base: Side, head: Side) -> Changes:
    """Compare by name; a relation that only got another name is the same one."""
    before, after = base.texts, head.texts
    renamed = _renamed(base, head)
    before = {
        (kind, renamed.get(name, name) if kind == "relation" else name): text for (kind, name), text in before.items()
    }
    new, gone = after.keys() - before.keys(), before.keys() - after.keys()
    changed = {one for one in after.keys() & before.keys() if after[one] != before[one]}
    roles = frozenset(one.name for one in base.tenancy.roles) & frozenset(one.name for one in head.tenancy.roles)
    then, now = base.common(roles), head.common(roles)
    common = tuple(what for what in now if base.catalog.relations and then[what] != now[what])
    reached = dependents(head, {*new, *changed, *_mentioning(head, {name for _, name in gone})}, dynamic=True)
    led = frozenset(after) if common else frozenset({*reached, *_leading(head, reached)})
    return Changes(frozenset(new), frozenset(gone), frozenset(changed), renamed, common, frozenset(reached), led)


def _renamed(base: Side, head: Side) -> Mapping[str, str]:
    """Relations that are gone and new ones that are the same but for the name, where it is clear which is which."""
    sides = (
        (base, base.relations.keys() - head.relations.keys()),
        (head, head.relations.keys() - base.relations.keys()),
    )
    shapes: list[dict[str, list[str]]] = []
    for side, names in sides:
        found: dict[str, list[str]] = defaultdict(list)
        for name in names:
            own = rf"(?<![\w$]){re.escape(side.relations[name].name)}(?![\w$])"
            found[re.sub(own, "\0", side.texts["relation", name])].append(name)
        shapes.append(found)
    pairs = ((shapes[0][shape], shapes[1][shape]) for shape in shapes[0].keys() & shapes[1].keys())
    return {one[0]: other[0] for one, other in pairs if len(one) == len(other) == 1}


def bare(one: str) -> str:
    return one.partition("(")[0].rpartition(".")[2].strip('"').lower()


def _mentioning(head: Side, names: Iterable[str]) -> set[Object]:
    """Objects whose text names something that is gone."""
    gone = {bare(name) for name in names}
    return {one for one in head.texts if gone and not gone.isdisjoint(head.reads(one))}


def dependents(head: Side, start: Iterable[Object], *, dynamic: bool) -> set[Object]:
    """``start`` and everything whose text leads there; with ``dynamic`` also what puts SQL together, for any relation."""
    reading: dict[str, list[Object]] = defaultdict(list)
    for one in head.texts:
        for word in head.reads(one):
            reading[word].append(one)
    found, waiting = set(start), list(start)
    while waiting:
        one = waiting.pop()
        for other in reading[bare(one[1])]:
            if other not in found:
                found.add(other)
                waiting.append(other)
    if dynamic and any(kind == "relation" for kind, _ in found):
        found.update(("function", name) for name, one in head.functions.items() if runs_text(one))
    return found


def _leading(head: Side, reached: Iterable[Object]) -> Iterator[Object]:
    """Relations through which rows of a reached one can be changed or seen: its parents, and what it cascades from."""
    for kind, name in reached:
        relation = head.relations.get(name) if kind == "relation" else None
        if relation is None:
            continue
        above = [*relation.parents]
        above += [
            c.referenced
            for c in head.catalog.constraints_of(relation.oid)
            if c.kind == "foreign key" and not _PASSED_ON.isdisjoint((c.on_update, c.on_delete))
        ]
        for oid in above:
            parent = head.catalog.find_relation(oid)
            if parent is not None and parent.qualified in head.relations:
                yield "relation", parent.qualified
