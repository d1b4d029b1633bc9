"""A context kept in a table: a function writes the tenant under the backend's or the transaction's number, policies read it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.tenancy import words
from rlsaudit.tenancy.model import Context, Persona

_NUMBERED = re.compile(r"\b(pg_backend_pid|txid_current\w*|pg_current_xact_id\w*)\s*\(", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SessionRows:
    """The relation that holds the context, and the function that writes it."""

    relation: Relation
    setter: Function


def session_rows(catalog: Catalog, roles: Iterable[int], visibility: Visibility) -> SessionRows | None:
    """None where an application role writes the table itself: then it holds back nothing."""
    able = tuple(roles)
    readers = [f for f in catalog.functions if f.extension is None and _NUMBERED.search(f.source)]
    for relation in catalog.relations if readers else ():
        named = re.compile(rf"\b(from|join)\s+([\w\"]+\.)?\"?{re.escape(relation.name)}\b", re.IGNORECASE)
        put = re.compile(rf"\b(insert\s+into|update)\s+([\w\"]+\.)?\"?{re.escape(relation.name)}\b", re.IGNORECASE)
        read = any(named.search(f.source) for f in readers)
        setters = [f for f in readers if put.search(f.source) and f.argument_types and f.returns != "trigger"]
        setters = [f for f in setters if any(visibility.may_execute(role, f) for role in able)]
        direct = any(visibility.may(role, relation, c) for role in able for c in ("INSERT", "UPDATE"))
        if relation.holds_rows and read and setters and not direct:
            return SessionRows(relation, min(setters, key=lambda f: (len(f.argument_types), f.signature)))
    return None


def with_rows(context: Context, rows: SessionRows) -> Context:
    """The context, set through that function as well."""
    called = f"SELECT {rows.setter.qualified}({', '.join(_arguments(rows.setter))})"
    why = f"{rows.setter.signature} keeps the tenant in {rows.relation.qualified}, under the number of the session"
    personas = context.personas or (Persona("tenant", ()),)
    direct = context.direct or Persona("tenant", ())
    return replace(
        context,
        personas=tuple(replace(one, statements=(*one.statements, called)) for one in personas),
        direct=replace(direct, statements=(*direct.statements, called)),
        why=f"{context.why}; {why}" if context.personas else why,
    )


def _arguments(setter: Function) -> Iterable[str]:
    for position, kind in enumerate(setter.argument_types):
        name = setter.argument_names[position] if position < len(setter.argument_names) else ""
        user = words.user_like(name) and not words.tenant_like(name)
        yield f":user::{kind}" if user or (position and not words.tenant_like(name)) else f":tenant::{kind}"
