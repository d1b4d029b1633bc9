"""The server, its roles and settings, and the ways out of a database and into it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Server:
    """The server and the session that took the snapshot."""

    version: str
    version_num: int
    system_identifier: str
    database: str
    session_role: str
    session_superuser: bool
    session_bypassrls: bool
    in_recovery: bool
    clock: str
    """Server time of the snapshot, ISO 8601 with offset."""
    database_owner: int = 0
    """OID of the role that is implicitly a member of pg_database_owner."""
    statistics_guarded: bool = True
    """Whether pg_stats_ext_exprs hides statistics of rows that policies hide, or is closed to PUBLIC."""

    @property
    def major(self) -> int:
        return self.version_num // 10000


@dataclass(frozen=True, slots=True)
class Role:
    oid: int
    name: str
    superuser: bool
    inherit: bool
    createrole: bool
    createdb: bool
    login: bool
    replication: bool
    bypassrls: bool

    @property
    def predefined(self) -> bool:
        """True of the roles that initdb makes, such as pg_read_all_data."""
        return self.name.startswith("pg_")


@dataclass(frozen=True, slots=True)
class Membership:
    """``member`` belongs to ``role``.  Before PostgreSQL 16 ``inherit`` is the member's attribute and ``set`` is true."""

    role: int
    member: int
    admin: bool
    inherit: bool
    set: bool


@dataclass(frozen=True, slots=True)
class Schema:
    oid: int
    name: str
    owner: int


@dataclass(frozen=True, slots=True)
class Parameter:
    """The value that a new session of the role that took the snapshot has (``pg_settings.reset_val``)."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Setting:
    """ALTER ROLE/DATABASE … SET (``pg_db_role_setting``); role 0 is all roles, database empty is all databases."""

    role: int
    database: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Publication:
    name: str
    all_tables: bool
    relations: tuple[int, ...]
    """Published relations, with those of published schemas and of FOR ALL TABLES resolved."""
    filtered: tuple[int, ...]
    """Those of ``relations`` that carry a row filter."""
    filter_trees: tuple[str, ...] = ()
    """Analysed row filters, in the order of ``filtered``."""


@dataclass(frozen=True, slots=True)
class ForeignServer:
    oid: int
    name: str
    wrapper: str
    owner: int
    options: tuple[str, ...] = ()
    """``name=value``; values of secrets are not recorded."""


@dataclass(frozen=True, slots=True)
class UserMapping:
    """As whom ``role`` (0: PUBLIC) reaches the other end of ``server``."""

    server: int
    role: int
    user: str | None = None
    """Option ``user``; None when it is not set or may not be seen."""
    visible: bool = True
    """Whether the session that took the snapshot may see the options."""


@dataclass(frozen=True, slots=True)
class LargeObjects:
    """Large objects of one owner."""

    owner: int
    count: int
