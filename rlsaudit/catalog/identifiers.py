"""Quoting of names and values for text that people read and run; statements sent to a server use psycopg.sql."""

from __future__ import annotations

import re
from functools import lru_cache

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*\Z")

# Words that the grammar does not accept as a bare column or table name (PostgreSQL manual, appendix C).
_RESERVED = frozenset(
    """all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate
    collation column concurrently constraint create cross current_catalog current_date current_role current_schema
    current_time current_timestamp current_user default deferrable desc distinct do else end except false fetch for
    foreign freeze from full grant group having ilike in initially inner intersect into is isnull join lateral
    leading left like limit localtime localtimestamp natural not notnull null offset on only or order outer overlaps
    placing primary references returning right select session_user similar some symmetric system_user table
    tablesample then to trailing true union unique user using variadic verbose when where window with""".split()
)


@lru_cache(maxsize=1 << 18)
def quote(name: str) -> str:
    """``name`` as an SQL identifier, quoted only where it must be (like ``quote_ident``)."""
    if _PLAIN.match(name) and name not in _RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def qualified(schema: str, name: str) -> str:
    return f"{quote(schema)}.{quote(name)}"


def remark(text: str) -> str:
    """An SQL comment of one line.  Names are hostile: the rest of one with a line break would be run."""
    return "-- " + " ".join("".join(c if c.isprintable() else " " for c in text).split())


def literal(value: str | None) -> str:
    """``value`` as an SQL string constant; safe under either setting of standard_conforming_strings."""
    if value is None:
        return "NULL"
    body = value.replace("'", "''")
    if "\\" in body:
        return " E'" + body.replace("\\", "\\\\") + "'"
    return f"'{body}'"
