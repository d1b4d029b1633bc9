"""How a session says for whom it acts: statements built from the settings that policies read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from rlsaudit.catalog.identifiers import literal
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.policies import settings_read
from rlsaudit.catalog.routines import Function
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.tenancy import words
from rlsaudit.tenancy.attributes import attribute_value
from rlsaudit.tenancy.choices import OFF, PLAIN, Values, choices, chosen, known_as_columns, switched
from rlsaudit.tenancy.keys import Keys
from rlsaudit.tenancy.model import Context, Persona
from rlsaudit.tenancy.sources import ROLE, Reading, Source

_SETS = re.compile(
    r"set_config\s*\(\s*E?'([^']+)'|\bSET\s+(?:LOCAL\s+|SESSION\s+)?\"?([a-z_][\w$]*(?:\.[\w$]+)+)\"?\s*(?:=|\bTO\b)",
    re.IGNORECASE,
)
_READS = re.compile(r"current_setting\s*\(\s*E?'([^']+)'", re.IGNORECASE)
_OF_CLIENTS = frozenset({"application_name"})
"""Parameters of the server's own that a client fills with a text of its choice."""
_PERSONAS = 6
_SETTERS = 6
_NAMES_SOMEBODY = ("uuid", "text", "character varying", "name", "smallint", "integer", "bigint", "numeric")
_EVERYBODY = re.compile(
    r"'(\*|%|all|any|every|everyone|0|-1|root|admin|system|service|superuser|global|internal)'", re.IGNORECASE
)


def infer_context(
    catalog: Catalog, reading: Reading, keys: Keys, roles: Iterable[int], visibility: Visibility
) -> Context:
    """Personas that set every setting policies, triggers and defaults read; empty when there is no setting to set."""
    values = _values(catalog, reading, keys)
    settings = tuple(sorted({source.setting for source in values if source.setting != ROLE}))
    if not settings:
        return Context(why="policies read no setting")
    usable = _usable(catalog, settings, roles, visibility)
    wrappers = _wrappers(usable, settings)
    personas = tuple(_personas(values, settings, wrappers))
    said = "; ".join(
        f"{source} = {' or '.join(options)}" for source, options in sorted(values.items()) if source.setting != ROLE
    )
    through = f", set through {', '.join(f.signature for f in wrappers)}" if wrappers else ""
    direct = Persona("tenant", tuple(_statements(values, chosen(values, 0), settings, ())))
    setters = tuple(
        Persona(f"by {other.signature}", tuple(_statements(values, chosen(values, None), settings, (other,))))
        for other in usable
        if other not in wrappers
    )
    return Context(
        personas, direct, settings, setters[:_SETTERS], why=f"policies, functions and triggers read {said}{through}"
    )


def set_by(function: Function) -> frozenset[str]:
    """Settings (lower case) that a function's source sets."""
    return frozenset((quoted or plain).lower() for quoted, plain in _SETS.findall(function.source))


def _values(catalog: Catalog, reading: Reading, keys: Keys) -> dict[Source, tuple[str, ...]]:
    sources = set(reading.sources)
    known = {source.setting for source in sources}
    for function in _trusted(catalog):
        sources.update(Source(name) for name in settings_read(catalog, function) if name not in known)
    for relation in catalog.relations:
        for column in relation.columns:
            found = _READS.findall(column.default or "")
            sources.update(Source(name.lower()) for name in found if name.lower() not in known)
    return {
        source: _options(catalog, source, reading, keys)
        for source in sources
        if "." in source.setting or (source.setting in _OF_CLIENTS and source in keys.tenant_sources)
    }


def _trusted(catalog: Catalog) -> tuple[int, ...]:
    """Trigger functions of tenant tables: guards that compare or fill the key from the context."""
    return tuple(sorted({trigger.function for trigger in catalog.triggers}))


def _options(catalog: Catalog, source: Source, reading: Reading, keys: Keys) -> tuple[str, ...]:
    constants = tuple(
        dict.fromkeys(
            literal(u.constant)
            for u in reading.uses
            if u.source == source and u.constant and not _of_an_administrator(catalog, source, u.constant)
        )
    )
    # A value that no tenant and no user has, and that policies know: it may stand for all of them.
    everybody = tuple(constant for constant in constants if _EVERYBODY.fullmatch(constant))[:2]
    if source in keys.tenant_sources:
        return (":tenant", *everybody)
    if source in keys.user_sources:
        held = source.setting in known_as_columns(reading)
        return (":user", *(everybody if held else constants))
    if (ons := switched(source, constants)) and source.setting not in known_as_columns(reading):
        return tuple(dict.fromkeys((OFF.get(ons[0], "'off'"), *ons)))
    if words.role_like(source.name) and constants:
        return tuple(dict.fromkeys((*constants, PLAIN)))
    attribute = attribute_value(catalog, reading, keys, source)
    if words.tenant_like(source.name):
        return (":tenant",)
    if attribute is not None and not words.user_like(source.name):
        return (literal(attribute),)
    if words.user_like(source.name):
        return (":user",)
    if constants:
        return tuple(dict.fromkeys((*constants, PLAIN)))
    # What nothing is known of is not taken for the tenant where another value is.
    known = words.role_like(source.name) or keys.tenant_sources or keys.user_sources
    return (PLAIN,) if known else (":tenant",)


def _of_an_administrator(catalog: Catalog, source: Source, constant: str) -> bool:
    """Whether a value names a role that row security does not bind: no session that acts for a tenant says that."""
    role = catalog.role_named(constant) if words.role_like(source.name) else None
    return role is not None and (role.superuser or role.bypassrls)


def _usable(
    catalog: Catalog, settings: tuple[str, ...], roles: Iterable[int], visibility: Visibility
) -> tuple[Function, ...]:
    """Functions of the schema that set one of the settings and that an application role may call."""
    wanted, able = set(settings), tuple(roles)
    return tuple(
        f for f in catalog.functions
        if f.extension is None and set_by(f) & wanted and f.argument_types and f.returns not in ("trigger", "event_trigger")
        and any(visibility.may_execute(role, f) for role in able)
    )  # fmt: skip


def _wrappers(usable: tuple[Function, ...], settings: tuple[str, ...]) -> tuple[Function, ...]:
    """As few of those functions as set all that they set between them, those that set most first."""
    wanted, found = set(settings), []
    for function in sorted(usable, key=lambda f: (-len(set_by(f) & wanted), len(f.argument_types), f.signature)):
        if set_by(function) & wanted:
            found.append(function)
            wanted -= set_by(function)
    return tuple(found)


def _personas(values: Values, settings: tuple[str, ...], wrappers: tuple[Function, ...]) -> Iterable[Persona]:
    """The plainest one first, then one for each special value of a setting, then one with all that is special at once.

    What leaks as an ordinary user needs no special value.
    """
    found = choices(values)
    for choice in found[:_PERSONAS]:
        name = ", ".join(f"{source}={value}" for source, value in choice.items() if value != found[0][source])
        yield Persona(
            name or "tenant", tuple(_statements(values, choice, settings, wrappers)), opening=choice is not found[0]
        )


def _statements(
    values: Values, chosen: Mapping[Source, str], settings: tuple[str, ...], wrappers: tuple[Function, ...]
) -> Iterable[str]:
    done: set[str] = set()
    for function in wrappers:
        done |= set_by(function)
        arguments = ", ".join(_argument(function, n, values, chosen) for n in range(len(function.argument_types)))
        verb = "CALL" if function.kind == "procedure" else "SELECT"
        yield f"{verb} {function.qualified}({arguments})"
    for setting in settings:
        if setting not in done and setting != ROLE:
            given = {
                source: chosen.get(source, options[0])
                for source, options in values.items()
                if source.setting == setting
            }
            yield f"SELECT set_config({literal(setting)}, {_document(given)}, true)"


def _argument(function: Function, position: int, values: Values, chosen: Mapping[Source, str]) -> str:
    named = function.argument_names[position] if position < len(function.argument_names) else ""
    kind = function.argument_types[position]
    only = len(function.argument_types) == 1
    if words.role_like(named):
        role = next(
            (
                chosen.get(s, o[0])
                for s, o in sorted(values.items())
                if s.setting in set_by(function) and o[0][0] == "'"
            ),
            "NULL",
        )
        return f"{role}::{kind}"
    if words.user_like(named) and not words.tenant_like(named):
        return f":user::{kind}"
    if words.tenant_like(named) or only or position == 0:
        return f":tenant::{kind}"
    return f":user::{kind}" if position == 1 and kind in _NAMES_SOMEBODY else f"NULL::{kind}"


def _document(given: Mapping[Source, str]) -> str:
    """A plain value, or a JSON document with every claim in its place."""
    if all(not source.path for source in given):
        return f"{next(iter(given.values()))}::text"
    tree: dict[str, object] = {}
    for source, value in sorted(given.items()):
        node = tree
        for step in source.path[:-1]:
            below = node.setdefault(step, {})
            node = below if isinstance(below, dict) else node
        if source.path:
            node.setdefault(source.path[-1], value)
    return f"{_json(tree)}::text"


def _json(tree: Mapping[str, object]) -> str:
    parts = []
    for key, value in tree.items():
        inner = _json(value) if isinstance(value, dict) else f"{value}::text"
        parts.append(f"{literal(key)}, {inner}")
    return f"json_build_object({', '.join(parts)})"
