"""Privileges: who was given what on which object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlsaudit.bulk import made_in_bulk

PUBLIC = 0
GrantTarget = Literal["relation", "column", "schema", "function", "database", "type", "parameter", "large object"]


@made_in_bulk
@dataclass(frozen=True, slots=True)
class Grant:
    """One privilege of one grantee, defaults (an absent ACL) made explicit."""

    target: GrantTarget
    object: int
    column: int
    """Column number of a column grant, else 0."""
    grantee: int
    privilege: str
    grantable: bool
    parameter: str = ""
    """Parameter name when ``target`` is ``parameter``."""


@dataclass(frozen=True, slots=True)
class DefaultPrivilege:
    """ALTER DEFAULT PRIVILEGES: objects that ``creator`` makes in ``schema`` (0: any) will be open to ``grantee``."""

    creator: int
    schema: int
    object_type: Literal["relation", "sequence", "function", "type", "schema", "large object"]
    grantee: int
    privilege: str


@dataclass(frozen=True, slots=True)
class SystemGrant:
    """A privilege on an object of pg_catalog that initdb did not give."""

    target: Literal["relation", "column", "function"]
    name: str
    """``pg_catalog.pg_statistic``; with the argument types for a function."""
    grantee: int
    privilege: str
