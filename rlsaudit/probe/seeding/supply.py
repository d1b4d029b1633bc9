"""Candidates for any column of any type: built-in types by ``values``, all others put together and filtered by the server."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Column, Policy, Relation
from rlsaudit.probe.seeding import server_side, shapes, values
from rlsaudit.probe.seeding.server_side import Connection, TypeFacts
from rlsaudit.tenancy.model import Tenancy

_KEPT = 16
_MINED = 30
"""Constants of each kind, per column."""
_SEGMENTS = re.compile(r"\b(?:AND|OR|THEN|WHEN|ELSE|END|IF|LOOP)\b|;", re.IGNORECASE)
_SOURCES = 40
"""Functions read for constants, per relation."""

_WORD = re.compile(r"[\w$]+")
_Segment = tuple[str, frozenset[str], tuple[str, ...]]
"""A part of a condition, its words and its constants."""


class Supply:
    """Knows the types and the constants of one schema."""

    def __init__(
        self, connection: Connection, catalog: Catalog, tenancy: Tenancy, relations: Iterable[Relation]
    ) -> None:
        self._connection = connection
        self._catalog = catalog
        self._declared: Mapping[str, tuple[str, ...]] = tenancy.seeding.values
        wanted = {column.type_oid for relation in relations for column in relation.columns}
        self._types = server_side.type_facts(connection, wanted)
        self._texts: dict[int, tuple[str, ...]] = {}
        self._segments: dict[int, list[_Segment]] = {}
        self._mined: dict[tuple[int, str], tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._readers = _readers(catalog)

    def pool(self, relation: Relation, column: Column, band: int, serial: int, *, mined_first: bool) -> tuple[str, ...]:
        """Values to try, the best first; ``band`` and ``serial`` as for ``values.candidates``."""
        declared = self._declared.get(f"{relation.qualified}.{column.name}", ())
        if declared:
            shift = serial % len(declared)
            return (*declared[shift:], *declared[:shift])
        near, far = self._constants(relation, column)
        facts = self._types.get(column.type_oid)
        if facts is None or _built_in(facts, column):
            made = values.candidates(column, band, serial, (*near, *far))
        else:
            made = self._of_type(facts, column.type, band, serial, (*near, *far))
        if mined_first and near and not self._unique(relation, column):
            first = [v for v in near if v in made and (column.category != "S" or v.replace("_", "").isalpha())]
            made = tuple(dict.fromkeys((*first, *made)))
        return made

    def near(self, relation: Relation, column: Column) -> tuple[str, ...]:
        """The constants that constraints, policies and triggers hold against the column."""
        return self._constants(relation, column)[0]

    def _unique(self, relation: Relation, column: Column) -> bool:
        """Whether no two rows can have the same value; a constant would serve but once."""
        return any(
            index.unique and index.columns == (column.number,) for index in self._catalog.indexes_of(relation.oid)
        )

    def of_argument(self, name: str, kind: str, band: int, serial: int) -> tuple[str, ...]:
        """Values for a function's argument, of which only the type's name is known."""
        facts = next((one for one in self._types.values() if one.name == kind), None)
        if facts is not None and facts.kind in "ecdrm":
            return self._of_type(facts, kind, band, serial, ())
        category = "S" if kind in ("text", "character varying", "citext") else ""
        return values.candidates(Column(0, name, kind, 0, kind, category, True, None), band, serial)

    # Types -----------------------------------------------------------------------------------------------------------

    def _of_type(self, facts: TypeFacts, name: str, band: int, serial: int, mined: tuple[str, ...]) -> tuple[str, ...]:
        if facts.kind == "e":
            shift = serial % max(1, len(facts.labels))
            named = tuple(v for v in mined if v in facts.labels)
            return tuple(dict.fromkeys((*named, *facts.labels[shift:], *facts.labels[:shift])))
        if facts.kind == "d":
            below = self._below(facts.base, facts.base_name, band, serial)
            asked = shapes.wanted_text(facts.checks, values.token(band, serial), serial) if facts.checks else ()
            listed = tuple(v for check in facts.checks for v in values.mine(check))
            return self._filtered(name, (*below, *asked, *listed, *mined))
        if facts.element:
            listed = self._below(facts.element, self._name(facts.element), band, serial)[:4]
            both = ["{" + _quote(one) + "}" for one in listed]
            both += ["{" + ",".join(map(_quote, listed[:2])) + "}"] if len(listed) > 1 else []
            return self._filtered(name, (*both, *mined, "{}"))
        if facts.kind == "c":
            attributes = zip(facts.attributes, facts.attribute_names, strict=True)
            parts = [self._below(oid, named, band, serial)[:1] for oid, named in attributes]
            return ("(" + ",".join(_quote(part[0]) if part else "" for part in parts) + ")",)
        if facts.kind in "rm":
            below = self._below(facts.subtype, self._name(facts.subtype), band, serial)[:4]
            return (
                tuple("{" + one + "}" for one in below)
                if facts.kind == "m"
                else tuple(f"[{_quote(v)},{_quote(v)}]" for v in below)
            )
        return self._filtered(name, _any_text(band, serial))

    def _below(self, oid: int, name: str, band: int, serial: int) -> tuple[str, ...]:
        facts = self._types.get(oid)
        category = facts.category if facts else ""
        bare = name.partition("(")[0].strip()
        column = Column(0, "", name, oid, name if facts and facts.kind == "b" else bare, category, True, None)
        if facts is None or _built_in(facts, column):
            return values.candidates(column, band, serial)
        return self._of_type(facts, name, band, serial, ())

    def _name(self, oid: int) -> str:
        facts = self._types.get(oid)
        return facts.name if facts else "text"

    def _filtered(self, name: str, given: tuple[str, ...]) -> tuple[str, ...]:
        """What the type takes.  The places of what it took before are asked about alone, as long as one of them is right."""
        known = [given[n] for n in self._shapes.get(name, ()) if n < len(given)]
        found = server_side.accepted(self._connection, name, known)
        if not found:
            found = server_side.accepted(self._connection, name, given)
            self._shapes[name] = tuple(n for n, value in enumerate(given) if value in found)[:_KEPT]
        return tuple(dict.fromkeys(found.values()))[:_KEPT]

    # Constants -------------------------------------------------------------------------------------------------------

    def _constants(self, relation: Relation, column: Column) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Constants that constraints, policies and functions hold against the column, and others beside it; the most
        frequent first."""
        place = (relation.oid, column.name)
        if place not in self._mined:
            if column.category not in "SNEDUA":
                return (), ()
            plain = _WORD.fullmatch(column.name) is not None
            near: Counter[str] = Counter()
            far: Counter[str] = Counter()
            for segment, words, constants in self._segments_about(relation):
                (near if (column.name in words if plain else _names(segment, column.name)) else far).update(constants)
            first = [v for v, _ in near.most_common() if values.fits(column, v)][:_MINED]
            then = [v for v, _ in far.most_common() if v not in near and values.fits(column, v)][:_MINED]
            if column.category not in "SE" and (first or then):
                taken = server_side.accepted(self._connection, column.type, (*first, *then))
                first, then = [taken[v] for v in first if v in taken], [taken[v] for v in then if v in taken]
            self._mined[place] = (tuple(first), tuple(then))
        return self._mined[place]

    def _segments_about(self, relation: Relation) -> list[_Segment]:
        if relation.oid not in self._segments:
            parts = (part for text in self._texts_about(relation) for part in _SEGMENTS.split(text))
            mined = ((part, constants) for part in parts if (constants := values.mine(part)))
            self._segments[relation.oid] = [
                (part, frozenset(_WORD.findall(part)), constants) for part, constants in mined
            ]
        return self._segments[relation.oid]

    def _texts_about(self, relation: Relation) -> tuple[str, ...]:
        if relation.oid not in self._texts:
            catalog = self._catalog
            texts = [c.expression or c.definition for c in catalog.constraints_of(relation.oid) if c.kind == "check"]
            policies = self._readers.get(relation.oid, ())
            texts += [text for policy in policies for text in (policy.using, policy.check) if text]
            called = {oid for policy in policies for oid in catalog.mentions("policy", policy.oid, "function")}
            called |= {trigger.function for trigger in catalog.triggers_of(relation.oid)}
            functions = [one for oid in sorted(called)[:_SOURCES] if (one := catalog.function(oid)) is not None]
            texts += [function.source for function in functions if function.language in ("sql", "plpgsql")]
            self._texts[relation.oid] = tuple(dict.fromkeys(texts))
        return self._texts[relation.oid]


def _names(segment: str, column: str) -> bool:
    return re.search(rf"(?<![\w$]){re.escape(column)}(?![\w$])", segment) is not None


def _readers(catalog: Catalog) -> dict[int, list[Policy]]:
    """Relation OID → its own policies and those of others that read it, themselves or through a function."""
    found: dict[int, list[Policy]] = {}
    named = {relation.name: relation.oid for relation in catalog.relations if relation.holds_rows}
    for policy in catalog.policies:
        read = {policy.relation, *catalog.mentions("policy", policy.oid, "relation")}
        for oid in catalog.mentions("policy", policy.oid, "function"):
            function = catalog.function(oid)
            words = re.findall(r"\w+", function.source) if function is not None else ()
            read |= {named[word] for word in words if word in named}
        for oid in read:
            found.setdefault(oid, []).append(policy)
    return found


def _built_in(facts: TypeFacts, column: Column) -> bool:
    """Whether ``values`` has what the type needs: known base types, enums, and arrays of known base types."""
    if facts.kind == "e":
        return bool(column.enum_labels)
    if facts.element:
        return values.known(column.type.removesuffix("[]"))
    return facts.kind in "brm" and (values.known(column.base_type) or facts.category in "SN")


def _quote(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _any_text(band: int, serial: int) -> tuple[str, ...]:
    """What input functions of types that nobody here knows might take."""
    word = values.token(band, serial)
    number = f"{band + 1}{serial:06d}"
    text = values.candidates(Column(0, "", "text", 0, "text", "S", True, None), band, serial)
    numbers = (
        "1",
        number,
        f"({number},1)",
        f"({number},1,1)",
        f"[{number},1]",
        f"[{number}]",
        f"{{{number}}}",
        f"{number}..{number}",
    )
    known = (
        f"{word}=>1", f"{word}.{number}", f"POINT({band} {serial})", f"1.0.{serial}", f'"{word}"', f"{word}:1", f"<{word}>",
        f"10.{band + 1}.{serial // 250 % 250}.{serial % 250}", f"{0xA0 + band:02x}{serial:06x}-0000-4000-8000-{serial:012x}",
        f"2031-01-{serial % 28 + 1:02d}", "true", "0101", f"{number} USD", f"USD {number}", "{}", "",
    )  # fmt: skip
    return tuple(dict.fromkeys((*text, *numbers, *known)))
