"""Text of the statements that the probe composes: identifiers quoted by psycopg, values as literals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import LiteralString

from psycopg import sql

from rlsaudit.catalog.relations import Relation
from rlsaudit.tenancy.logins import filled
from rlsaudit.tenancy.model import Persona

_ESCAPED = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
"""What the text format of COPY writes otherwise."""
_PLACEHOLDER = re.compile(r"(?<!:):(tenant|user)\b")


def text(composed: sql.Composable) -> str:
    """The SQL text; literals are quoted for a UTF-8 server with standard_conforming_strings on."""
    return composed.as_string(None)


def said(template: LiteralString, *parts: sql.Composable) -> str:
    """The SQL text of a template with its parts filled in."""
    return text(sql.SQL(template).format(*parts))


def name(relation: Relation) -> sql.Composed:
    return sql.SQL("{}.{}").format(sql.Identifier(relation.schema), sql.Identifier(relation.name))


def literal(value: str | None) -> sql.Composable:
    """A constant of unknown type, which the server coerces to the column's type as it would a parameter."""
    return sql.SQL("NULL") if value is None else sql.Literal(value)


def insert(relation: Relation, row: Mapping[str, str | None], *, overriding: bool = True) -> sql.Composed:
    """``INSERT INTO relation (columns) VALUES (row)``; ``DEFAULT VALUES`` for an empty row."""
    if not row:
        return sql.SQL("INSERT INTO {} DEFAULT VALUES").format(name(relation))
    return sql.SQL("INSERT INTO {} ({}){} VALUES ({})").format(
        name(relation),
        columns(row),
        sql.SQL(" OVERRIDING SYSTEM VALUE" if overriding and _always_identity(relation, row) else ""),
        sql.SQL(", ").join(literal(value) for value in row.values()),
    )


def columns(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(one) for one in names)


def matching(
    relation: Relation, row: Mapping[str, str | None], key: Sequence[str], alias: str | None = None
) -> sql.Composed:
    """A condition that picks ``row`` by ``key`` columns."""
    by = [column for column in key if row.get(column) is not None]
    parts = [
        sql.SQL("{} = {}").format(
            sql.Identifier(alias, column) if alias else sql.Identifier(column), literal(row[column])
        )
        for column in by
    ]
    return sql.SQL(" AND ").join(parts) if parts else sql.Composed([sql.SQL("true")])


@lru_cache(1024)
def acting(persona: Persona, tenant: str | None, user: str | None) -> tuple[str, ...]:
    """The persona's statements with ``:tenant`` and ``:user`` as quoted literals (NULL for None), its login first."""
    given = {"tenant": text(literal(tenant)), "user": text(literal(user))}
    login = (Login(filled(persona.login, tenant or "", user or "")),) if persona.login else ()
    said = (_PLACEHOLDER.sub(lambda found: given[found[1]], statement) for statement in persona.statements)
    return (*login, *said)


class Login(str):
    """The statement by which a superuser's script becomes ``role``.  A session of the probe logs in as it instead; the
    statement does no harm there, because every session may take the authorization that it logged in with."""

    role: str

    def __new__(cls, role: str) -> Login:
        said = super().__new__(cls, text(sql.SQL("SET LOCAL SESSION AUTHORIZATION {}").format(sql.Identifier(role))))
        said.role = role
        return said


class Copy(str):
    """``COPY relation (columns) FROM STDIN`` of one row, which is sent apart from the statement."""

    data: str

    def __new__(cls, relation: Relation, row: Mapping[str, str | None]) -> Copy:
        made = super().__new__(cls, said("COPY {} ({}) FROM STDIN", name(relation), columns(row)))
        made.data = "\t".join(r"\N" if value is None else value.translate(_ESCAPED) for value in row.values()) + "\n"
        return made


def _always_identity(relation: Relation, row: Mapping[str, str | None]) -> bool:
    return any(c.identity == "always" and c.name in row for c in relation.columns)
