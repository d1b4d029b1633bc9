"""Functions, and the named things that expressions are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlsaudit.catalog.identifiers import qualified


@dataclass(frozen=True, slots=True)
class Function:
    oid: int
    schema: str
    name: str
    kind: Literal["function", "procedure", "aggregate", "window"]
    owner: int
    language: str
    security_definer: bool
    leakproof: bool
    strict: bool
    volatility: Literal["immutable", "stable", "volatile"]
    argument_names: tuple[str, ...]
    argument_types: tuple[str, ...]
    """Input arguments only, as ``format_type`` prints them."""
    returns: str
    returns_set: bool
    settings: tuple[str, ...]
    """``proconfig``: ``search_path=pg_catalog, pg_temp``."""
    source: str
    """``prosrc``, or the body of a ``BEGIN ATOMIC`` function as the server prints it."""
    body_tree: str | None
    """``prosqlbody::text`` of a ``BEGIN ATOMIC`` function."""
    extension: str | None = None
    return_type: int = 0
    """OID of the result type."""

    @property
    def qualified(self) -> str:
        return qualified(self.schema, self.name)

    @property
    def signature(self) -> str:
        """``schema.name(argument types)``, as GRANT and ALTER FUNCTION want it."""
        return f"{self.qualified}({', '.join(self.argument_types)})"


@dataclass(frozen=True, slots=True)
class EventTrigger:
    name: str
    event: str
    """``ddl_command_start``, ``ddl_command_end``, ``sql_drop``, ``table_rewrite``, ``login``."""
    tags: tuple[str, ...]
    """Command tags that it fires for; empty means any."""
    function: int
    enabled: Literal["origin", "disabled", "replica", "always"]


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function, operator or type that an expression tree names, resolved: enough to interpret it."""

    oid: int
    schema: str
    name: str
    function: int = 0
    """Of an operator: its implementing function's OID."""
    btree_equality: bool = False
    """Of an operator: strategy 3 member of a default btree family (true equality)."""
    volatility: Literal["", "immutable", "stable", "volatile"] = ""
    strict: bool = False
    """Of a function: NULL for any NULL argument."""
    cost: float = 1
    """Of a function: what the planner takes one call for."""


@dataclass(frozen=True, slots=True)
class Collation:
    """A collation that initdb did not make."""

    oid: int
    schema: str
    name: str
    deterministic: bool


@dataclass(frozen=True, slots=True)
class Extension:
    name: str
    version: str
    schema: str
    trusted: bool | None = None
    """Whether who is no superuser may install it: it gives nobody access to what they could not reach; None: unknown."""
