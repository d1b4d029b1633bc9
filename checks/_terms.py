"""Terms of conditions in a function's body: columns, arguments, and what a session is known by."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from rlsaudit.checks._query import Query, Source, is_query, queries
from rlsaudit.checks._sql import Group, Nodes, Token, is_symbol, is_word, split

from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.routines import Function

Label = Literal["session", "secret", "constant", "person", "argument", "open"]
RANK: tuple[Label, ...] = ("session", "secret", "constant", "person", "argument", "open")
"""What rows can be held against, the strongest bond first; the last three are none to the session."""
STRENGTH: Mapping[Label, int] = {label: position for position, label in enumerate(RANK)}
LOOSE: tuple[Label, ...] = RANK[3:]
Slot: TypeAlias = "tuple[int, str]"
"""A column of one source, or (0, name) for an argument."""
_KEYWORDS = frozenset(
    "and or not null true false case when then else end is distinct from in any all some exists between like ilike similar to"
    " as array interval cast row collate at time zone asc desc nulls first last unknown using variadic default over filter"
    " partition by within symmetric escape isnull notnull operator select where limit".split()
)
_SESSION = frozenset({"session_user", "pg_backend_pid", "system_user", "inet_client_addr"})
_FRESH = re.compile(r"^(?:gen_random_uuid|uuid_?generate\w*|uuidv\d|nextval|gen_\w+|generate_\w+)$")


@dataclass(frozen=True)
class Term:
    """One side of a comparison, or a whole condition."""

    columns: frozenset[Slot] = frozenset()
    arguments: frozenset[str] = frozenset()
    """Arguments and variables whose value the caller chooses."""
    held: frozenset[Slot] = frozenset()
    """Columns and arguments given to a function that looks at the session."""
    session: bool = False
    plain: bool = False
    """Nothing but one column or argument, under casts."""
    blank: bool = False
    """NULL, TRUE, FALSE or an empty string."""
    same: bool = False
    """A column that bears the name of an argument, so that the argument is out of sight."""

    @property
    def constant(self) -> bool:
        return not (self.columns or self.arguments or self.session or self.held)

    @property
    def slots(self) -> frozenset[Slot]:
        return self.columns or frozenset((0, name) for name in self.arguments)

    def __or__(self, other: Term) -> Term:
        return Term(
            self.columns | other.columns, self.arguments | other.arguments, self.held | other.held,
            self.session or other.session,
        )  # fmt: skip


@dataclass
class Body:
    """What is known while a function's body is read."""

    function: Function
    find: Callable[[tuple[str, ...]], Relation | None]
    reads_session: Callable[[str], bool]
    """Whether a user function of this name looks at the session."""
    variables: dict[str, Label] = field(default_factory=dict)
    transitions: dict[str, frozenset[str]] = field(default_factory=dict)
    """Transition tables of a trigger, with their columns that are known to be the session's."""
    anchored: frozenset[str] | None = None
    new_is_free: bool = False
    """NEW is what the caller wrote, as under a view, whose new rows no policy or key is held against."""
    """Columns of NEW and OLD that are known to be the session's; None outside a trigger."""
    switched: dict[str, str] = field(default_factory=dict)
    """Settings that the body itself has set, and the argument they were set to."""
    column_first: bool = True
    overflow: bool = False
    parsed: dict[Group, tuple[Query, ...]] = field(default_factory=dict)
    sources: dict[int, Source] = field(default_factory=dict)
    """Every source that was met, by its identity."""

    def inner(self, group: Group, visible: Mapping[str, tuple[Query, ...]] | None = None) -> tuple[Query, ...]:
        """The queries of a subquery; ``visible``: the WITH queries around it."""
        if group not in self.parsed:
            self.parsed[group] = queries((group,), dict(visible or {}))
        return self.parsed[group]


Scopes: TypeAlias = "tuple[Query, ...]"
"""The query and those around it, innermost first."""


class Reader:
    """Reads terms and conditions in the scope of one query."""

    def __init__(self, body: Body, scopes: Scopes) -> None:
        self.body, self.scopes = body, scopes

    def inner(self, group: Group) -> tuple[Query, ...]:
        return self.body.inner(group, self.scopes[0].visible if self.scopes else None)

    def term(self, nodes: Nodes) -> Term:
        while len(nodes) == 1 and isinstance(nodes[0], Group) and not is_query(nodes[0]):
            nodes = nodes[0].nodes
        found, parts, position = Term(), 0, 0
        strings: list[str] = []
        fold = False
        while position < len(nodes):
            node = nodes[position]
            if is_symbol(node, "::"):
                position = _after_type(nodes, position + 1)
                continue
            parts += 1
            if isinstance(node, Group):
                found |= self._group(node)
            elif node.kind == "string":
                strings.append(node.text)
            elif node.kind == "parameter":
                found |= self._argument(node.text)
            elif is_word(node, "cast", "coalesce", "nullif") and position + 1 < len(nodes):
                fold, parts = True, parts - 1
            elif node.identifier and not (node.kind == "word" and node.text in _KEYWORDS):
                one, position = self._named(nodes, position)
                found |= one
                continue
            position += 1
        single = len(found.slots) == 1 and not found.session and not found.held
        return replace(
            found,
            plain=single
            and parts == 1
            and not (found.columns and found.arguments)
            and not (fold and found.columns and parts > 1),
            blank=parts == 1
            and found.constant
            and (strings == [""] or (bool(nodes) and is_word(nodes[0], "null", "true", "false"))),
        )

    def _group(self, group: Group) -> Term:
        if is_query(group):
            found = Term()
            for query in self.inner(group):
                reader = Reader(self.body, (query, *self.scopes))
                for item in query.output:
                    found |= reader.term(item)
            return found
        nodes = tuple(node for node in group.nodes if not is_word(node, "as"))
        found = Term()
        for part in split(nodes, ","):
            found |= self.term(part)
        return found

    def _named(self, nodes: Nodes, position: int) -> tuple[Term, int]:
        parts: list[str] = []
        while position < len(nodes):
            node = nodes[position]
            if not (isinstance(node, Token) and node.identifier):
                break
            parts.append(node.identifier)
            position += 1
            if position >= len(nodes) or not is_symbol(nodes[position], "."):
                break
            position += 1
        following = nodes[position] if position < len(nodes) else None
        if isinstance(following, Group) and following.opening == "(":
            return self._call(parts[-1], following), position + 1
        if parts[-1] in _SESSION or (
            parts[-1] in ("current_user", "current_role", "user")
            and not self.body.function.security_definer
            and len(parts) == 1
        ):
            return Term(session=True), position
        if self.body.anchored is not None and parts[0] in ("new", "old"):
            return self._row(parts, nodes), position
        return self.name(tuple(parts)), position

    def _row(self, parts: list[str], nodes: Nodes) -> Term:
        assert self.body.anchored is not None
        strings = {node.text for node in nodes if isinstance(node, Token) and node.kind == "string"}
        names = {parts[1]} if len(parts) > 1 else strings
        if names and names <= self.body.anchored and not (self.body.new_is_free and parts[0] == "new"):
            return Term(session=True)
        return Term(arguments=frozenset({".".join((parts[0].upper(), *parts[1:2]))}))

    def _call(self, name: str, group: Group) -> Term:
        if is_query(group):
            return self._group(group)
        inner = self._group(group)
        if name == "current_setting":
            first = group.nodes[0] if group.nodes else None
            setting = first.text.lower() if isinstance(first, Token) and first.kind == "string" else None
            switched = self.body.switched.get(setting or "")
            if switched:
                return Term(arguments=frozenset({switched}))
            return Term(session=setting is not None, arguments=inner.arguments)
        if name in _SESSION:
            return Term(session=True)
        if self.body.reads_session(name):
            return Term(session=True, held=inner.columns | inner.held | {(0, one) for one in inner.arguments})
        return inner

    def name(self, parts: tuple[str, ...]) -> Term:
        """A column, an argument or a variable; an empty term when it is none of them."""
        if len(parts) == 1 and not self.body.column_first and self._local(parts[0]):
            return self._argument(parts[0])
        column = self._column(parts)
        if column:
            return Term(columns=column, same=len(parts) == 1 and parts[0] in self.body.function.argument_names)
        if len(parts) > 1 and parts[-2] == self.body.function.name and self._local(parts[-1]):
            return self._argument(parts[-1])
        return self._argument(parts[0])

    def _local(self, name: str) -> bool:
        return name in self.body.variables or name in self.body.function.argument_names

    def _argument(self, name: str) -> Term:
        names = self.body.function.argument_names
        if name.startswith("$") and name[1:].isdigit() and int(name[1:]) <= len(names) and names[int(name[1:]) - 1]:
            name = names[int(name[1:]) - 1]
        label = self.body.variables.get(name)
        if label == "session":
            return Term(session=True)
        if label in ("constant", "secret", "person"):
            return Term()
        return Term(arguments=frozenset({name})) if label or name in names or name.startswith("$") else Term()

    def _column(self, parts: tuple[str, ...]) -> frozenset[Slot]:
        for depth, query in enumerate(self.scopes):
            for source in [*query.sources, *([query.target] if query.target else [])]:
                if len(parts) > 1 and (parts[-2] != source.alias):
                    continue
                found = self._of(source, self.scopes[depth + 1 :], parts[-1], len(parts) == 1)
                if found:
                    return found
        return frozenset()

    def _of(self, source: Source, around: Scopes, name: str, bare: bool) -> frozenset[Slot]:
        if source.queries:
            found: set[Slot] = set()
            for inner in source.queries:
                found |= _output(Reader(self.body, (inner, *around)), inner, name)
            return frozenset(found) or (frozenset() if bare else frozenset({(id(source), name)}))
        relation = self.body.find(source.name) if source.name else None
        if source.chosen and bare:
            return frozenset() if self._local(name) else frozenset({(id(source), name)})
        if bare and (relation is None or relation.column(name) is None):
            return frozenset()
        return frozenset({(id(source), name)})


def _output(reader: Reader, query: Query, name: str) -> set[Slot]:
    """The columns that an output column of a derived table stands for."""
    for item in query.output:
        last = item[-1] if item else None
        if isinstance(last, Token) and last.identifier == name:
            renamed = len(item) > 1 and not is_symbol(item[-2], ".")
            return set(
                reader.term(
                    item[:-2] if renamed and is_word(item[-2], "as") else item[:-1] if renamed else item
                ).columns
            )
    if any(item and is_symbol(item[-1], "*") for item in query.output):
        return set(reader.name((name,)).columns)
    return set()


def _after_type(nodes: Nodes, position: int) -> int:
    """The position after a type's name."""
    while position < len(nodes):
        node = nodes[position]
        following = nodes[position + 1] if position + 1 < len(nodes) else None
        position += 1
        if (
            is_symbol(following, ".")
            or is_symbol(node, ".")
            or is_word(following, "precision", "varying", "without", "with", "time", "zone")
        ):
            continue
        while (
            position < len(nodes)
            and isinstance(group := nodes[position], Group)
            and (group.opening == "[" or isinstance(node, Token))
        ):
            position += 1
        return position
    return position


def fresh(nodes: Nodes) -> bool:
    """Whether a value is made anew, so that it is nobody's yet."""
    return any(isinstance(node, Token) and node.identifier and _FRESH.match(node.identifier) for node in nodes)
